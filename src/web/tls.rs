//! Certificates that the server makes for itself: an authority for this practice alone, which its computers install
//! once, and the server's own, which it signs. The authority's name constraints (RFC 5280 section 4.2.1.10) keep it
//! from vouching for any other site, so that installing it risks nothing.
//!
//! Each file holds certificate and key in PEM, written at once. Before the first block, where PEM allows any text (RFC
//! 7468 section 2), a line says what the file is for, so that nothing here has to parse X.509. `ca.pem` beside them is
//! the authority's certificate alone, for other programs.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use ring::digest;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

const DAY_MS: i64 = 24 * 3600 * 1000;
const AUTHORITY_DAYS: i64 = 3_650;
/// Browsers accept at most 398 days from public authorities; staying below it is safe everywhere.
const SERVER_DAYS: i64 = 397;
const RENEW_BEFORE_DAYS: i64 = 30;

const AUTHORITY_FILE: &str = "authority.pem";
const SERVER_FILE: &str = "server.pem";
/// The authority without its key, for programs on this server that are to trust it.
const PUBLIC_FILE: &str = "ca.pem";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged: restore it from a backup, or remove it and install the new authority on every computer"
    )]
    Damaged { path: PathBuf },
    #[error("a certificate could not be made for these names")]
    Make(#[from] rcgen::Error),
    #[error("the certificate cannot be used")]
    Use(#[from] rustls::Error),
}

/// What a PEM file is for.
#[derive(Serialize, Deserialize)]
struct Purpose {
    common_name: String,
    /// DNS names and IP addresses.
    names: Vec<String>,
    until: Timestamp,
}

impl Purpose {
    fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.until.ms_since(now) > RENEW_BEFORE_DAYS * DAY_MS
    }
}

struct Made {
    purpose: Purpose,
    key: KeyPair,
}

/// Makes or renews what is missing, about to expire or for other names. Gives whether the server's certificate is new:
/// then [`Certificate::reload`]. Computers that trust the authority need it anew only when a name was added to `names`,
/// or after ten years.
pub fn ensure_certificates(dir: &Path, names: &[String], now: Timestamp) -> Result<bool, TlsError> {
    let failed = |source| TlsError::File { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let authority =
        read(&dir.join(AUTHORITY_FILE))?.filter(|made| made.purpose.covers(names) && made.purpose.is_fresh(now));
    let is_new = authority.is_none();
    let authority = match authority {
        Some(authority) => authority,
        None => make_authority(dir, names, now)?,
    };
    let server = read(&dir.join(SERVER_FILE))?;
    let is_right = server.is_some_and(|made| made.purpose.names == names && made.purpose.is_fresh(now));
    if is_right && !is_new {
        return Ok(false);
    }
    make_server(dir, &authority, names, now)?;
    Ok(true)
}

/// Until when the server's certificate in `dir` is good.
pub fn certificate_until(dir: &Path) -> Result<Timestamp, TlsError> {
    let path = dir.join(SERVER_FILE);
    let missing = || TlsError::File { path: path.clone(), source: io::ErrorKind::NotFound.into() };
    Ok(read(&path)?.ok_or_else(missing)?.purpose.until)
}

fn authority_params(purpose: &Purpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, purpose.common_name.clone());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let addresses = || purpose.names.iter().filter_map(|name| name.parse::<IpAddr>().ok());
    let mut permitted: Vec<GeneralSubtree> = addresses()
        .map(|address| {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, whole))
        })
        .collect();
    let hosts: Vec<&String> = purpose.names.iter().filter(|name| name.parse::<IpAddr>().is_err()).collect();
    permitted.extend(hosts.iter().map(|host| GeneralSubtree::DnsName(host.to_string())));
    // A kind of name that nothing permits has to be forbidden, or all of it is allowed.
    let mut excluded = Vec::new();
    if hosts.is_empty() {
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    if addresses().next().is_none() {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
    params
}

fn make_authority(dir: &Path, names: &[String], now: Timestamp) -> Result<Made, TlsError> {
    let key = KeyPair::generate()?;
    let host = names.first().map_or("this server", String::as_str);
    // Two authorities of one name would confuse browsers, so the day is part of it.
    let common_name = format!("Frontdesk on {host}, {}", now.to_jiff().strftime("%Y-%m-%d"));
    let purpose = Purpose { common_name, names: names.to_vec(), until: now.plus_ms(AUTHORITY_DAYS * DAY_MS) };
    let mut params = authority_params(&purpose);
    set_validity(&mut params, now, purpose.until);
    let certificate = params.self_signed(&key)?;
    write(&dir.join(PUBLIC_FILE), &certificate.pem())?;
    write(&dir.join(AUTHORITY_FILE), &with_key(&purpose, &certificate.pem(), &key))?;
    Ok(Made { purpose, key })
}

fn make_server(dir: &Path, authority: &Made, names: &[String], now: Timestamp) -> Result<(), TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    let until = now.plus_ms(SERVER_DAYS * DAY_MS).min(authority.purpose.until);
    let common_name = names.first().cloned().unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, common_name.clone());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, until);
    let issuer = Issuer::new(authority_params(&authority.purpose), &authority.key);
    let certificate = params.signed_by(&key, &issuer)?;
    let purpose = Purpose { common_name, names: names.to_vec(), until };
    write(&dir.join(SERVER_FILE), &with_key(&purpose, &certificate.pem(), &key))
}

/// Whole days in UTC, from the day before: clocks differ.
fn set_validity(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let date = |at: Timestamp| {
        let date = at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).date();
        (i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    let (year, month, day) = date(now.plus_ms(-DAY_MS));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(until);
    params.not_after = date_time_ymd(year, month, day);
}

fn read(path: &Path) -> Result<Option<Made>, TlsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TlsError::File { path: path.to_owned(), source }),
    };
    let damaged = || TlsError::Damaged { path: path.to_owned() };
    let purpose = text.lines().next().and_then(|line| serde_json::from_str(line).ok()).ok_or_else(damaged)?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged())?;
    let key = KeyPair::try_from(&key).map_err(|_| damaged())?;
    Ok(Some(Made { purpose, key }))
}

fn with_key(purpose: &Purpose, certificate: &str, key: &KeyPair) -> String {
    let purpose = serde_json::to_string(purpose).expect("a purpose has no unserialisable part");
    format!("{purpose}\n{certificate}{}", key.serialize_pem())
}

/// All or nothing, readable by nobody else.
fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    let put = || {
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    put().map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// What browsers install to trust this server.
#[derive(Clone)]
pub struct Authority {
    /// X.509, DER.
    pub der: Vec<u8>,
    /// SHA-256 as colon-separated hexadecimal pairs, to compare by eye.
    pub fingerprint: String,
}

impl Authority {
    /// Reads the authority that [`ensure_certificates`] made in `dir`.
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let path = dir.join(AUTHORITY_FILE);
        let text = fs::read(&path).map_err(|source| TlsError::File { path: path.clone(), source })?;
        let der = CertificateDer::from_pem_slice(&text).map_err(|_| TlsError::Damaged { path })?.to_vec();
        let hash = digest::digest(&digest::SHA256, &der);
        let pairs: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self { der, fingerprint: pairs.join(":") })
    }
}

/// The server's certificate in use, which can be replaced while connections are served.
pub struct Certificate {
    dir: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the certificate that [`ensure_certificates`] made in `dir`.
    pub fn load(dir: &Path) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { dir: dir.to_owned(), current: RwLock::new(certified(dir)?) }))
    }

    /// New connections get what is in the file now.
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified(&self.dir)?;
        Ok(())
    }
}

fn certified(dir: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let path = dir.join(SERVER_FILE);
    let text = fs::read(&path).map_err(|source| TlsError::File { path: path.clone(), source })?;
    let damaged = |_| TlsError::Damaged { path: path.clone() };
    let chain = vec![CertificateDer::from_pem_slice(&text).map_err(damaged)?];
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(damaged)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &default_provider())?))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate(…)")
    }
}

/// TLS 1.2 and 1.3, for HTTP/2 and HTTP/1.1.
pub fn server_config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::{
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::UnixTime,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn certificates_are_renewed_when_they_have_to_be_and_only_then() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("tls");
        let office = names(&["desk.example.org", "192.0.2.7"]);
        assert!(ensure_certificates(&dir, &office, NOW).unwrap());
        let authority = Authority::load(&dir).unwrap();
        let mode = fs::metadata(dir.join(SERVER_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!ensure_certificates(&dir, &office, NOW).unwrap());
        assert!(!ensure_certificates(&dir, &office, NOW.plus_ms(360 * DAY_MS)).unwrap());
        assert!(ensure_certificates(&dir, &office, NOW.plus_ms(370 * DAY_MS)).unwrap());
        assert!(ensure_certificates(&dir, &names(&["desk.example.org"]), NOW).unwrap());
        assert_eq!(Authority::load(&dir).unwrap().der, authority.der, "computers go on trusting the same authority");
        assert!(ensure_certificates(&dir, &names(&["other.example.org"]), NOW).unwrap());
        assert_ne!(Authority::load(&dir).unwrap().der, authority.der);
        server_config(Certificate::load(&dir).unwrap()).unwrap();
    }

    /// Whether a browser that trusts the authority in `authority` takes the server in `server` for `name`.
    fn is_trusted(authority: &Path, server: &Path, name: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(Authority::load(authority).unwrap().der.into()).unwrap();
        let provider = Arc::new(default_provider());
        let browser = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let certified = certified(server).unwrap();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_millis(NOW.millis() as u64));
        browser.verify_server_cert(&certified.cert[0], &[], &name.try_into().unwrap(), &[], time).is_ok()
    }

    #[test]
    fn the_authority_vouches_for_this_practice_and_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        for (dir, own, foreign) in [
            ("host", vec!["desk.example.org"], ["www.example.com", "192.0.2.7"]),
            ("address", vec!["192.0.2.7"], ["www.example.com", "192.0.2.8"]),
        ] {
            let dir = home.path().join(dir);
            ensure_certificates(&dir, &names(&own), NOW).unwrap();
            assert!(is_trusted(&dir, &dir, own[0]));
            let authority = read(&dir.join(AUTHORITY_FILE)).unwrap().unwrap();
            for name in foreign {
                let stolen = dir.join(name);
                fs::create_dir(&stolen).unwrap();
                make_server(&stolen, &authority, &names(&[name]), NOW).unwrap();
                assert!(!is_trusted(&dir, &stolen, name), "{name}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_never_replaced_silently() {
        let home = tempfile::tempdir().unwrap();
        ensure_certificates(home.path(), &names(&["localhost"]), NOW).unwrap();
        fs::write(home.path().join(AUTHORITY_FILE), "rubbish").unwrap();
        assert!(matches!(ensure_certificates(home.path(), &names(&["localhost"]), NOW), Err(TlsError::Damaged { .. })));
    }
}

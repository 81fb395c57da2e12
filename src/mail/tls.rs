//! TLS towards mail servers: rustls with ring, public roots plus at most one extra CA file.

use std::{error::Error, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The TLS settings cannot be used: the configuration names something wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    #[error("the CA file cannot be read")]
    CaFile { source: io::Error },
    #[error("the CA file holds no usable PEM certificate")]
    NoCertificate,
}

/// Trusts the public roots and the certificates in `ca_file` (PEM), for practices whose mail server has its own CA.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let pem = read_ca(path)?;
        let extra: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| TlsSetupError::NoCertificate)?;
        if roots.add_parsable_certificates(extra).0 == 0 {
            return Err(TlsSetupError::NoCertificate);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The bytes of a CA file, for libraries that parse PEM themselves.
pub fn read_ca(path: &Path) -> Result<Vec<u8>, TlsSetupError> {
    std::fs::read(path).map_err(|source| TlsSetupError::CaFile { source })
}

/// The name that the server's certificate must carry: a host name or an IP address.
pub fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(host.to_owned())
}

/// Encrypts `stream` and verifies that the server is `name`.
pub async fn handshake(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    TlsConnector::from(config).connect(name, stream).await
}

/// Why a handshake failed, in words for the person who set the server up; `None` where `error` is about something else.
pub fn reason(error: &(dyn Error + 'static)) -> Option<&'static str> {
    use rustls::{CertificateError as Certificate, Error as Tls};
    let mut next = Some(error);
    while let Some(error) = next {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inside.and_then(|inside| inside.downcast_ref::<Tls>()).or_else(|| error.downcast_ref::<Tls>());
        if let Some(found) = found {
            return Some(match found {
                Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
                    "its certificate has expired"
                }
                Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
                    "its certificate is for another name than the configured host"
                }
                Tls::InvalidCertificate(Certificate::UnknownIssuer) => {
                    "nobody trusted signed its certificate; name its CA as ca_file"
                }
                Tls::InvalidCertificate(_) => "its certificate is not acceptable",
                Tls::InvalidMessage(_) => "it does not speak TLS on this port; check port and security",
                _ => "it and this program share no way to encrypt",
            });
        }
        next = error.source();
    }
    None
}

//! Mail out: one attempt to hand one message to the practice's submission server (RFC 6409), and what became of it.
//!
//! The attempt is driven command by command, since the difference that matters is *where* it failed: before the final
//! dot nothing has left and trying again is safe; after it, without an answer, the message may have left and must never
//! be repeated by itself (requirements X9).

mod compose;

use std::{
    fmt::Write,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use lettre::{
    Address,
    transport::smtp::{
        Error as LibraryError,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};
use serde::Deserialize;
use tokio::time::timeout;

use self::compose::Composed;
use super::{Secret, Security, tls};
use crate::model::{
    address::EmailAddress,
    outgoing::{HandOver, OutgoingMail, Receipt},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// MAIL, every RCPT and DATA together.
const ENVELOPE_DEADLINE: Duration = Duration::from_secs(120);
/// The content and its answer: servers scan mail before they answer (RFC 5321 section 4.5.3.2.6).
const CONTENT_DEADLINE: Duration = Duration::from_secs(300);
const AFTER_REFUSED_LOG_IN_MS: u64 = 120_000;
const SLOWEST_BYTES_PER_S: u64 = 16 * 1024;

/// A submission server as the configuration describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Host name or address; the server's certificate must carry it.
    pub host: String,
    /// TCP port; 465 unless said otherwise.
    #[serde(default = "default_port")]
    pub port: u16,
    #[serde(default)]
    pub security: Security,
    pub user: String,
    /// Name of the credential that holds the password, never the password.
    pub credential: String,
    /// PEM file of a CA to trust besides the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

fn default_port() -> u16 {
    465
}

impl SmtpConfig {
    /// What is wrong with the values, as key and words.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.host.is_empty() || tls::server_name(&self.host).is_err() {
            return Err(("host", "name a host or an IP address".to_owned()));
        }
        Ok(())
    }
}

/// Why no message could be offered at all, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    #[error(transparent)]
    TlsSetup(#[from] tls::TlsSetupError),
    #[error("the mail server cannot be reached or gives no answer; check host, port and the network")]
    Unreachable,
    #[error("the mail server is not trusted and got no password: {reason}")]
    Tls { reason: &'static str },
    #[error(
        "the mail server offers no STARTTLS on this port and got no password; use security = \"tls\" with port 465"
    )]
    NoStartTls,
    #[error("the mail server refuses the user name or the password; check both, or make an app password")]
    LogIn,
    #[error("the mail server offers no log-in by password on this port")]
    NoLogIn,
    #[error("the mail server does not serve at the moment")]
    NotNow,
}

/// A new Message-ID (RFC 5322 section 3.6.4) without its angle brackets. Its left part cannot be guessed, so that a
/// reply that refers to it proves to have seen it (requirements E15).
pub fn message_id(random: [u8; 16], domain: &str) -> String {
    format!("{}@{domain}", data_encoding::BASE32HEX_NOPAD.encode(&random).to_ascii_lowercase())
}

/// Connects, encrypts and logs in; sends nothing.
pub async fn probe(config: &SmtpConfig, password: &Secret) -> Result<(), SmtpError> {
    let mut connection = connect(config, password).await?;
    let _ = timeout(Duration::from_secs(5), connection.quit()).await;
    Ok(())
}

/// Makes one attempt to hand `mail` over.
pub async fn send(config: &SmtpConfig, password: &Secret, mail: &OutgoingMail) -> HandOver {
    let composed = match compose::compose(mail) {
        Ok(composed) => composed,
        Err(problem) => return HandOver::Refused { what: problem.to_string() },
    };
    let mut connection = match connect(config, password).await {
        Ok(connection) => connection,
        Err(error) => {
            // A wrong password that is tried often gets accounts locked.
            let after_ms = matches!(error, SmtpError::LogIn).then_some(AFTER_REFUSED_LOG_IN_MS);
            return HandOver::RetryLater { what: error.to_string(), after_ms };
        }
    };
    let refused = match timeout(ENVELOPE_DEADLINE, offer(&mut connection, &composed)).await {
        Ok(Ok(refused)) => refused,
        Ok(Err(ended)) => return ended,
        Err(_) => return retry("the mail server gave no answer in time"),
    };
    let ended = transfer(&mut connection, &composed.bytes).await;
    if let HandOver::Accepted(_) = ended {
        let _ = timeout(Duration::from_secs(5), connection.quit()).await;
        return HandOver::Accepted(Receipt::Mail { refused });
    }
    ended
}

fn retry(what: impl Into<String>) -> HandOver {
    HandOver::RetryLater { what: what.into(), after_ms: None }
}

async fn connect(config: &SmtpConfig, password: &Secret) -> Result<AsyncSmtpConnection, SmtpError> {
    let parameters = tls_parameters(config)?;
    let hello = ClientId::default();
    let connecting = async {
        let server = (config.host.as_str(), config.port);
        let (first, later) = match config.security {
            Security::Tls => (Some(parameters), None),
            Security::StartTls => (None, Some(parameters)),
        };
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_DEADLINE), &hello, first, None)
            .await
            .map_err(connect_failure)?;
        if let Some(parameters) = later {
            if !connection.can_starttls() {
                connection.abort().await;
                return Err(SmtpError::NoStartTls);
            }
            connection.starttls(parameters, &hello).await.map_err(connect_failure)?;
        }
        if connection.server_info().get_auth_mechanism(MECHANISMS).is_none() {
            connection.abort().await;
            return Err(SmtpError::NoLogIn);
        }
        let credentials = Credentials::new(config.user.clone(), password.expose().to_owned());
        connection
            .auth(MECHANISMS, &credentials)
            .await
            .map_err(|error| if error.is_permanent() { SmtpError::LogIn } else { connect_failure(error) })?;
        Ok(connection)
    };
    timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| SmtpError::Unreachable)?
}

const MECHANISMS: &[Mechanism] = &[Mechanism::Plain, Mechanism::Login];

fn tls_parameters(config: &SmtpConfig) -> Result<TlsParameters, SmtpError> {
    let mut builder = TlsParameters::builder(config.host.clone()).certificate_store(CertificateStore::WebpkiRoots);
    if let Some(path) = &config.ca_file {
        let pem = tls::read_ca(path)?;
        let certificate = Certificate::from_pem(&pem).map_err(|_| tls::TlsSetupError::NoCertificate)?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(|_| tls::TlsSetupError::NoCertificate.into())
}

fn connect_failure(error: LibraryError) -> SmtpError {
    if let Some(reason) = tls::reason(&error) {
        SmtpError::Tls { reason }
    } else if error.is_tls() {
        SmtpError::Tls { reason: "the TLS handshake failed" }
    } else if error.status().is_some() {
        SmtpError::NotNow
    } else {
        SmtpError::Unreachable
    }
}

/// Offers the envelope (RFC 5321 section 3.3); returns the recipients that the server refused while it took others.
async fn offer(connection: &mut AsyncSmtpConnection, mail: &Composed) -> Result<Vec<EmailAddress>, HandOver> {
    let mut parameters = Vec::new();
    if !mail.is_ascii_envelope() {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            connection.abort().await;
            return Err(HandOver::Refused {
                what: "an address has letters that the mail server cannot handle".to_owned(),
            });
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let from = Mail::new(Some(mail.from.clone()), parameters);
    if let Err(error) = connection.command(from).await {
        return Err(ended(connection, &error, "the sender's address").await);
    }
    let mut refused = Vec::new();
    let mut taken = 0;
    let mut deferred = None;
    let mut last = None;
    for (address, email) in &mail.recipients {
        match connection.command(Rcpt::new(Address::clone(address), Vec::new())).await {
            Ok(_) => taken += 1,
            Err(error) if error.status().is_some() => {
                refused.push(email.clone());
                if error.is_transient() {
                    deferred = Some(error);
                } else {
                    last = Some(error);
                }
            }
            Err(_) => return Err(retry("the connection to the mail server was lost")),
        }
    }
    // Where nobody was taken, somebody who was only put off decides for all: nothing has left.
    if taken == 0
        && let Some(error) = deferred.or(last)
    {
        return Err(ended(connection, &error, "the recipient").await);
    }
    match connection.command(Data).await {
        Ok(_) => Ok(refused),
        Err(error) => Err(ended(connection, &error, "the message").await),
    }
}

/// What an error before the content means.
async fn ended(connection: &mut AsyncSmtpConnection, error: &LibraryError, object: &str) -> HandOver {
    if error.status().is_none() {
        return retry("the connection to the mail server was lost");
    }
    let _ = timeout(Duration::from_secs(5), connection.abort()).await;
    answer(error, object)
}

fn answer(error: &LibraryError, object: &str) -> HandOver {
    let code = reply_code(error);
    if error.is_transient() {
        retry(format!("the mail server puts off {object} ({code})"))
    } else {
        HandOver::Refused { what: format!("the mail server refuses {object} ({code})") }
    }
}

/// Sends the content. Until the final dot is begun, nothing has left; from then on only an answer tells.
async fn transfer(connection: &mut AsyncSmtpConnection, bytes: &[u8]) -> HandOver {
    let dot_begun = AtomicBool::new(false);
    // The library asks for the next piece once the one before is written, and writes the dot when there is none.
    let pieces = std::iter::once(bytes).chain(std::iter::from_fn(|| {
        dot_begun.store(true, Ordering::Relaxed);
        None
    }));
    let deadline = CONTENT_DEADLINE + Duration::from_secs(bytes.len() as u64 / SLOWEST_BYTES_PER_S);
    match timeout(deadline, connection.message_iter(pieces)).await {
        Ok(Ok(_)) => HandOver::Accepted(Receipt::Mail { refused: Vec::new() }),
        Ok(Err(error)) if error.status().is_some() => answer(&error, "the message"),
        _ if dot_begun.load(Ordering::Relaxed) => HandOver::Unknown {
            what: "the mail server had the whole message and did not say whether it took it".to_owned(),
        },
        _ => retry("the connection to the mail server was lost while the message was on its way"),
    }
}

/// `550 5.1.1` without the server's words, which repeat addresses.
fn reply_code(error: &LibraryError) -> String {
    let mut code = error.status().map(|code| code.to_string()).unwrap_or_default();
    let text = error.to_string();
    let enhanced = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() == 3
            && matches!(parts[0], "2" | "4" | "5")
            && parts[1..].iter().all(|part| (1..=3).contains(&part.len()))
    });
    if let Some(enhanced) = enhanced {
        // Writing to a String cannot fail.
        let _ = write!(code, " {enhanced}");
    }
    code
}

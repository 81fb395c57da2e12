//! The pages before the inbox, and those in its place when something is wrong.

use askama::Template;

use super::When;

#[derive(Template)]
#[template(path = "login.html")]
pub struct LoginPage {
    pub practice: String,
    /// As it was typed.
    pub login: String,
    /// Path to go to afterwards.
    pub next: String,
    pub problem: Option<LoginProblem>,
    pub notice: Option<LoginNotice>,
}

pub enum LoginProblem {
    /// Name or password: never said which.
    Wrong,
    Locked {
        until: When,
    },
}

pub enum LoginNotice {
    LoggedOut,
    /// Nobody touched the page for too long.
    Expired,
    PasswordSet,
}

/// Where a one-time link leads: the first password, or a new one.
#[derive(Template)]
#[template(path = "welcome.html")]
pub struct WelcomePage {
    pub practice: String,
    pub state: WelcomeState,
}

pub enum WelcomeState {
    Open {
        /// Path that the form goes to: this page's own.
        action: String,
        name: String,
        login: String,
        min_chars: u32,
        problem: Option<PasswordProblem>,
    },
    /// Used, too old, or never made.
    Spent,
}

pub enum PasswordProblem {
    TooShort,
    Differ,
    /// On the list of passwords that attackers try first, or made of the person's own name.
    Guessable,
}

/// How a computer of the practice learns to trust this server.
#[derive(Template)]
#[template(path = "ca.html")]
pub struct CaPage {
    pub practice: String,
    /// The address that staff type, such as `https://frontdesk.example.org:8443`.
    pub address: String,
    /// SHA-256 of the certificate as colon-separated hexadecimal pairs.
    pub fingerprint: String,
}

#[derive(Template)]
#[template(path = "error.html")]
pub struct ErrorPage {
    pub kind: ErrorKind,
    /// Where the button leads; the inbox or the log-in page.
    pub back: String,
}

pub enum ErrorKind {
    BadRequest,
    Forbidden,
    NotFound,
    Conflict,
    TooLarge,
    TooMany,
    /// The reference stands in the server's log.
    Failed {
        reference: String,
    },
    Unavailable,
    DiskFull,
}

impl ErrorKind {
    /// HTTP status (RFC 9110 section 15).
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Failed { .. } => 500,
            Self::Unavailable => 503,
            Self::DiskFull => 507,
        }
    }
}

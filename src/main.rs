//! Arguments in, exit codes out. What the program does is in the library.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use frontdesk::{
    admin::{self, Answer, Request},
    app::{
        self, damage, demo, doctor, init,
        key::{self, Keeping},
        salvage, unseal,
    },
    config,
    config::Config,
    harden,
    model::staff::Role,
    store::keyslots::Kept,
};

/// One encrypted inbox for a medical practice's mail, texts and voicemail.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = config::DEFAULT_PATH, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (systemd does this)
    Serve,
    /// Run a simulated practice to look at and to train with
    Demo {
        /// Where it keeps its store; only a directory that an earlier demo made is wiped
        #[arg(long, default_value = "var/demo", value_name = "DIRECTORY")]
        directory: PathBuf,
        /// Where browsers are served
        #[arg(long, default_value = "127.0.0.1:8443")]
        listen: std::net::SocketAddr,
        /// Seconds between two messages, on average
        #[arg(long, default_value_t = 8.0, value_parser = parse_pace)]
        pace: f64,
        /// The same seed gives the same patients
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Make key, certificate, store and the first account, once
    Init {
        /// The first administrator's log-in name
        #[arg(long, value_name = "NAME")]
        admin: String,
        /// Keep the key encrypted for this machine instead of in a file
        #[arg(long, value_enum)]
        seal: Option<Seal>,
        /// Keep no key on this machine: somebody types a passphrase after each start
        #[arg(long, conflicts_with = "seal")]
        passphrase: bool,
    },
    /// What opens the records: key slots, the recovery key, and another key
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Open the records of the running daemon with a passphrase or the recovery key
    Unseal,
    /// Write everything of a damaged store that can be read into a new directory, while the daemon does not run
    Salvage {
        /// A directory that does not exist yet, where nobody else can read it: the records are not encrypted there
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
    },
    /// Check the configuration and say what is wrong
    CheckConfig,
    /// Look at configuration, keys, store and channels, and say what to do
    Doctor,
    /// Accounts of the running daemon
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Destroy messages for good, and print the certificate
    #[command(group = clap::ArgGroup::new("what").required(true).args(["messages", "list"]))]
    Shred {
        /// Ids of messages: the API gives them, and each entry of a conversation's page bears its own
        #[arg(value_name = "MESSAGE-ID", requires = "reason")]
        messages: Vec<String>,
        /// Why: it stands on the certificate, so name nobody in it
        #[arg(long, value_name = "TEXT", conflicts_with = "list")]
        reason: Option<String>,
        /// Show the certificates of what was destroyed
        #[arg(long, conflicts_with = "messages")]
        list: bool,
    },
    /// What the running daemon's store has lost
    Damage {
        #[command(subcommand)]
        command: DamageCommand,
    },
    /// The clock that the running daemon goes by
    Clock {
        #[command(subcommand)]
        command: ClockCommand,
    },
    /// Bearer tokens for the API of the running daemon
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Seal {
    /// By the host's own key, which lies on its disk
    Host,
    /// By this machine's TPM2: a stolen disk does not open
    Tpm2,
}

impl From<Seal> for Kept {
    fn from(seal: Seal) -> Self {
        match seal {
            Seal::Host => Self::Host,
            Seal::Tpm2 => Self::Tpm2,
        }
    }
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Show the key slots
    List,
    /// Add a key slot
    Add {
        #[command(flatten)]
        opener: NewOpener,
        /// Whose it is, or where
        #[arg(long, default_value = "", hide_default_value = true)]
        label: String,
    },
    /// End a key slot, by the number that `list` shows
    Remove { slot: u32 },
    /// Print a new recovery key, and end the old one
    Recovery {
        /// Where it is kept
        #[arg(long, default_value = "", hide_default_value = true)]
        label: String,
    },
    /// Replace the key itself, and the recovery key with it
    Rotate,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct NewOpener {
    /// Asked for at the terminal, or the next line of standard input
    #[arg(long)]
    passphrase: bool,
    /// A new file that holds a key, for root alone
    #[arg(long, value_name = "FILE")]
    credential: Option<PathBuf>,
    /// A key that is encrypted for this machine
    #[arg(long, value_enum)]
    seal: Option<Seal>,
}

impl From<KeyCommand> for key::Command {
    fn from(command: KeyCommand) -> Self {
        match command {
            KeyCommand::List => Self::List,
            KeyCommand::Add { opener: NewOpener { credential: Some(path), .. }, label } => {
                Self::AddCredential { path, label }
            }
            KeyCommand::Add { opener: NewOpener { seal: Some(seal), .. }, label } => {
                Self::Seal { kept: seal.into(), label }
            }
            KeyCommand::Add { label, .. } => Self::AddPassphrase { label },
            KeyCommand::Remove { slot } => Self::Remove { slot },
            KeyCommand::Recovery { label } => Self::Recovery { label },
            KeyCommand::Rotate => Self::Rotate,
        }
    }
}

#[derive(Subcommand)]
enum UserCommand {
    /// Add an account and print its one-time link
    Add {
        login: String,
        /// As colleagues read it
        #[arg(long)]
        name: String,
        #[arg(long, value_parser = parse_role)]
        role: Role,
    },
    /// Print a new one-time link to set a password
    Link {
        login: String,
    },
    List,
    /// End an account's sessions and tokens, and let it in no more
    Disable {
        login: String,
    },
    Enable {
        login: String,
    },
}

#[derive(Subcommand)]
enum DamageCommand {
    /// Show what is damaged, with the ids of the messages
    List,
    /// Say that nothing more of it can be brought back: it alarms nobody any more, and old keys may go
    GiveUp,
}

#[derive(Subcommand)]
enum ClockCommand {
    /// Say that the server's clock is right, after it jumped; somebody else has to say so too
    Confirm,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token that acts with an account's rights, and print it once
    Create {
        login: String,
        /// What it is for
        #[arg(long, default_value = "API")]
        name: String,
        /// Valid for so many days, 1 to 366
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
    List,
    /// End a token, by the id that `list` shows
    Revoke {
        id: String,
    },
}

fn parse_role(text: &str) -> Result<Role, String> {
    let known = || Role::ALL.map(Role::slug).join(", ");
    Role::from_slug(text).ok_or_else(|| format!("expected one of: {}", known()))
}

fn parse_pace(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|pace| (0.2..=3600.0).contains(pace)).ok_or_else(|| "expected 0.2 to 3600".to_owned())
}

fn main() -> ExitCode {
    harden::harden();
    let arguments = Arguments::parse();
    start_logging(matches!(arguments.command, Command::Demo { .. }));
    rustls::crypto::ring::default_provider().install_default().expect("nobody else installed a provider");
    // Root's init changes the user before any thread exists.
    if let Command::Init { admin, seal, passphrase } = &arguments.command {
        let kept = seal.map_or(Kept::Plain, Kept::from);
        let keeping = if *passphrase { Keeping::Passphrase } else { Keeping::Credential(kept) };
        return finish(init::run(&arguments.config, admin, keeping));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts");
    let ended = runtime.block_on(run(arguments));
    // A store that is just being opened is not waited for: whatever it was doing, it can do again.
    runtime.shutdown_background();
    ended
}

async fn run(arguments: Arguments) -> ExitCode {
    let path = arguments.config;
    match arguments.command {
        Command::Serve => match Config::load(&path) {
            Ok(config) => finish_app(app::serve(config).await),
            Err(error) => finish_app(Err(error.into())),
        },
        Command::Demo { directory, listen, pace, seed } => {
            let options = demo::Options { directory, listen, pace_s: pace, seed };
            finish(demo::run(options).await)
        }
        Command::CheckConfig => match Config::load(&path) {
            Ok(_) => say(&format!("{} is right", path.display())),
            Err(error) => complain(&error.to_string(), 78),
        },
        Command::Salvage { to } => match salvage::run(&path, &to).await {
            Ok(done) if done.unreadable == 0 => {
                say(&format!("{} records and {} files written", done.records, done.files))
            }
            Ok(done) => complain(
                &format!(
                    "{} records and {} files written; {} could not be read and are named in {}",
                    done.records,
                    done.files,
                    done.unreadable,
                    to.join("unreadable.txt").display()
                ),
                1,
            ),
            Err(error) => complain(&chain(&error), 1),
        },
        Command::Unseal => match unseal::run(&path).await {
            Ok(()) => say("the records are being opened"),
            Err(error) => complain(&chain(&error), 1),
        },
        Command::Doctor => {
            let findings = doctor::examine(&path).await;
            let colour = std::io::stdout().is_terminal();
            for finding in &findings {
                let mark = match (finding.good, colour) {
                    (true, true) => "\x1b[32m✓\x1b[0m",
                    (false, true) => "\x1b[31m✗\x1b[0m",
                    (true, false) => "ok  ",
                    (false, false) => "BAD ",
                };
                print(&format!("{mark} {}", finding.what));
            }
            if findings.iter().all(|finding| finding.good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::User { command } => {
            let request = match command {
                UserCommand::Add { login, name, role } => Request::AddUser { login, name, role },
                UserCommand::Link { login } => Request::LinkUser { login },
                UserCommand::List => Request::ListUsers,
                UserCommand::Disable { login } => Request::SetUserDisabled { login, disabled: true },
                UserCommand::Enable { login } => Request::SetUserDisabled { login, disabled: false },
            };
            ask(&path, &request).await
        }
        Command::Damage { command: DamageCommand::List } => ask(&path, &Request::ListDamage).await,
        Command::Damage { command: DamageCommand::GiveUp } => finish(damage::give_up(&path).await),
        Command::Clock { command: ClockCommand::Confirm } => ask(&path, &Request::ConfirmClock).await,
        Command::Token { command } => {
            let request = match command {
                TokenCommand::Create { login, name, days } => Request::CreateToken { login, name, days },
                TokenCommand::List => Request::ListTokens,
                TokenCommand::Revoke { id } => Request::RevokeToken { id },
            };
            ask(&path, &request).await
        }
        Command::Shred { list: true, .. } => ask(&path, &Request::ListCertificates).await,
        Command::Shred { messages, reason, .. } => {
            ask(&path, &Request::Shred { messages, reason: reason.unwrap_or_default() }).await
        }
        Command::Key { command } => finish(key::run(&path, command.into()).await),
        Command::Init { .. } => unreachable!("init ran before the runtime"),
    }
}

async fn ask(path: &Path, request: &Request) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return complain(&error.to_string(), 78),
    };
    match admin::ask(&config.admin.socket, request).await {
        Ok(Answer::Done) => say("done"),
        Ok(Answer::Said(what)) => say(&what),
        Ok(Answer::Link(secret)) => {
            say(&format!("One-time link, valid for three days:\n{}", app::link(&config, &secret)))
        }
        Ok(Answer::Token(secret)) => say(&format!("Shown once, keep it safe:\n{secret}")),
        Ok(Answer::Rows(rows)) => {
            rows.iter().for_each(|row| print(&row.join("\t")));
            ExitCode::SUCCESS
        }
        Ok(Answer::Damage { lines, .. }) if lines.is_empty() => say("nothing is damaged, or all of it is given up"),
        Ok(Answer::Damage { lines, .. }) => {
            lines.iter().for_each(|line| print(line));
            ExitCode::SUCCESS
        }
        Ok(Answer::Findings(findings)) => {
            findings.iter().for_each(|finding| print(&finding.what));
            ExitCode::SUCCESS
        }
        Ok(Answer::Error(what)) => complain(&what, 1),
        Ok(Answer::Keyslots(_) | Answer::Keyslot(_) | Answer::KeyslotOnly { .. } | Answer::InDoubt(_)) => {
            complain("the daemon answers something else", 1)
        }
        Err(error) => complain(&error.to_string(), 1),
    }
}

/// Prints a line; a reader who went away (`| head`) is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn say(text: &str) -> ExitCode {
    print(text);
    ExitCode::SUCCESS
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "frontdesk: {text}");
    ExitCode::from(code)
}

fn finish_app(ended: Result<(), app::AppError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            complain(&chain(&error), code)
        }
    }
}

fn finish<E: std::error::Error>(ended: Result<(), E>) -> ExitCode {
    ended.map_or_else(|error| complain(&chain(&error), 1), |()| ExitCode::SUCCESS)
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}

/// To the journal where systemd listens, else to standard error. `RUST_LOG` chooses what.
fn start_logging(quiet: bool) {
    use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};
    let usual = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let registry = tracing_subscriber::registry().with(filter);
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    match tracing_journald::layer().ok().filter(|_| under_systemd) {
        Some(journal) => registry.with(journal).init(),
        None => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init(),
    }
}

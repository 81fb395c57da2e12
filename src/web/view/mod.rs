//! What people see: view structs with plain, ready-made values, and the templates that give them words and shape.
//!
//! The routes fill these structs; nothing here asks the store or decides who may see what. Every word that staff
//! read stands in `templates/`, so that wording is changed in one place; times and addresses come as finished text.
//!
//! Every page works as plain links and forms. `assets/app.js` makes it live: it fetches the same URLs with the header
//! `X-Part`, gets a *Part* instead of a *Page*, and merges it by the ids and revisions that the templates write.
//! No template holds an inline script or style: the content security policy forbids both, and a test here asserts it.

mod conversation;
mod entrance;
pub mod health;
mod list;
mod quoted;
mod shell;
mod start;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use conversation::{
    Attempt, Audio, Automated, CcChoice, Composer, Conflict, Contacted, Conversation, Day, Destroyed, Entry, Event,
    EventKind, File, Gone, Inbound, InboundKind, LineChoice, News, NoWay, Note, OtherConversation, Outbound, Panel,
    Problem, Recipient, Restricted, SendState, Way,
};
pub use entrance::{
    CaPage, ErrorKind, ErrorPage, LoginNotice, LoginPage, LoginProblem, PasswordProblem, WelcomePage, WelcomeState,
};
pub use list::{Item, LastSeen, List, Order, Scope};
pub use shell::{
    Banner, ConversationPart, Done, InboxPage, Lamp, LampState, ListPart, Me, Pane, Rail, Toast, View, ViewCount,
};
pub use start::{StartPage, Starting, UnsealProblem};

/// An instant in the practice's zone, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct When {
    /// As short as the place allows: `10:42`, `Tue`, `3 Nov`, `42 min`.
    pub short: String,
    /// In full, for the tooltip: `Friday 20 November 2026, 10:42:07`.
    pub full: String,
    /// RFC 3339, for machines.
    pub iso: String,
}

/// Somebody who works here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Person {
    pub id: String,
    pub name: String,
    /// Two letters for small spaces.
    pub initials: String,
    /// The person who looks at the page.
    pub me: bool,
}

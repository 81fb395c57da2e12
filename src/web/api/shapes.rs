//! The words and small shapes that all parts of the API share.

use serde::{Deserialize, Serialize};
use std::fmt::Display;
use utoipa::ToSchema;

use crate::model::{
    address, category, line,
    message::{self, Recipient as ModelRecipient},
    outbound, parsed, staff,
    time::Timestamp,
};

/// An identifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(pattern = "^[0-9a-v]{26}$", examples("069hq3ijc8000000000000000o"))]
pub(super) struct Id(String);

impl Id {
    pub fn of(id: impl Display) -> Self {
        Self(id.to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A point in time, UTC (RFC 3339).
#[derive(Serialize, ToSchema)]
#[schema(format = DateTime, examples("2027-01-15T08:00:00Z"))]
pub(super) struct Time(String);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at.to_string())
    }
}

/// An enum of the domain as the API writes it: a variant that is new there does not compile before it is named here.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident is $model:ty { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "kebab-case")]
        pub(super) enum $name { $($(#[$variant_doc])* $variant),* }

        impl From<$model> for $name {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$variant => Self::$variant),* }
            }
        }

        impl From<$name> for $model {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }
    };
}

words! {
    /// What a message is about, which decides who may see it.
    Category is category::Category { Uncategorised, Appointment, Refill, Billing, Clinical, Records, Other }
}
words! {
    /// How a message travels.
    Channel is line::Channel { Mail, Sms, Voicemail }
}
words! {
    /// What an account may see and do.
    Role is staff::Role { FrontDesk, Nurse, Manager, Administrator }
}
words! {
    /// Why a message was not written by a person.
    Automatic is parsed::Automatic { Reply, Bulk, Bounce }
}
words! {
    /// Whether the PBX's own lamp still shows a voicemail as new: `here-first` was handled in the inbox and the PBX is
    /// to be told, `by-phone` was heard by telephone.
    Heard is message::Heard { No, HereFirst, Everywhere, ByPhone }
}
words! {
    /// What becomes of a send that failed or may have happened.
    Answer is outbound::Answer { ItArrived, SendAgain, GiveUp }
}

/// What an address is.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AddressKind {
    /// A telephone number, E.164.
    Phone,
    Email,
    /// A short code, an alphanumeric sender or an internal extension: cannot be written to.
    Name,
    /// Withheld, or a mail without a sender.
    Unknown,
}

/// Where somebody is reached, or who they claim to be.
#[derive(Serialize, ToSchema)]
pub(super) struct Address {
    kind: AddressKind,
    /// `null` where unknown.
    value: Option<String>,
}

impl From<&address::Address> for Address {
    fn from(address: &address::Address) -> Self {
        let (kind, value) = match address {
            address::Address::Phone(number) => (AddressKind::Phone, Some(number.as_e164().to_owned())),
            address::Address::Email(email) => (AddressKind::Email, Some(email.as_str().to_owned())),
            address::Address::Named(name) => (AddressKind::Name, Some(name.clone())),
            address::Address::Unknown => (AddressKind::Unknown, None),
        };
        Self { kind, value }
    }
}

/// Somebody who gets or sent a message.
#[derive(Serialize, ToSchema)]
pub(super) struct Recipient {
    name: Option<String>,
    address: Address,
}

impl From<&ModelRecipient> for Recipient {
    fn from(recipient: &ModelRecipient) -> Self {
        Self { name: recipient.name.clone(), address: (&recipient.address).into() }
    }
}

impl From<&parsed::Mailbox> for Recipient {
    fn from(mailbox: &parsed::Mailbox) -> Self {
        let address = address::Address::Email(mailbox.address.clone());
        Self { name: mailbox.name.clone(), address: (&address).into() }
    }
}

//! People who work here, and what their role lets them do. Deny by default.

use serde::{Deserialize, Serialize};

use super::{
    category::{Categories, Category},
    ids::{SessionId, StaffId, TokenId},
    time::Timestamp,
};

/// A role decides which categories of messages a person sees and what else they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Answers phones and messages; triages what nobody has categorised yet.
    FrontDesk,
    /// Clinical and medication questions, not money.
    Nurse,
    /// The practice's owner or manager: everything, and the accounts.
    Manager,
    /// The contractor: accounts and health of the system, no message.
    Administrator,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::FrontDesk, Self::Nurse, Self::Manager, Self::Administrator];

    pub fn word(self) -> &'static str {
        match self {
            Self::FrontDesk => "Front desk",
            Self::Nurse => "Triage nurse",
            Self::Manager => "Practice manager",
            Self::Administrator => "Administrator",
        }
    }

    pub fn slug(self) -> &'static str {
        match self {
            Self::FrontDesk => "front-desk",
            Self::Nurse => "nurse",
            Self::Manager => "manager",
            Self::Administrator => "administrator",
        }
    }

    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.slug() == slug)
    }

    /// The categories of messages that this role sees.
    pub fn sees(self) -> Categories {
        use Category::{Appointment, Billing, Clinical, Other, Records, Refill, Uncategorised};
        match self {
            Self::FrontDesk => Categories::of(&[Uncategorised, Appointment, Billing, Records, Other]),
            Self::Nurse => Categories::of(&[Uncategorised, Appointment, Refill, Clinical, Records, Other]),
            Self::Manager => Categories::ALL,
            Self::Administrator => Categories::NONE,
        }
    }

    pub fn may_manage_staff(self) -> bool {
        matches!(self, Self::Manager | Self::Administrator)
    }

    /// Sees how the whole program is, and may say that the clock is right; everybody sees how the lines are.
    pub fn sees_health(self) -> bool {
        matches!(self, Self::Manager | Self::Administrator)
    }
}

/// An account. Ids are never reused; accounts are disabled, not deleted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Staff {
    pub id: StaffId,
    /// What one types to log in: lower case.
    pub login: String,
    pub name: String,
    pub role: Role,
    /// Argon2id in PHC form; `None` until the one-time link was used.
    pub password: Option<String>,
    pub disabled: bool,
    pub failed_logins: u32,
    /// No log-in before this time, after repeated wrong passwords.
    pub locked_until: Option<Timestamp>,
}

impl Staff {
    /// Two letters for small spaces.
    pub fn initials(&self) -> String {
        let mut letters = self.name.split_whitespace().filter_map(|word| word.chars().next());
        let first = letters.next();
        let last = letters.next_back();
        first.into_iter().chain(last).flat_map(char::to_uppercase).collect()
    }
}

/// Who asks for something: every use case takes one, and the audit names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub staff: StaffId,
    pub role: Role,
    pub via: Via,
    /// Where the request came from, as an IP address.
    pub address: Option<String>,
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Via {
    Session(SessionId),
    Token(TokenId),
}

impl Who {
    pub fn sees(&self) -> Categories {
        self.role.sees()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_somebody_who_sees_it() {
        for category in Category::ALL {
            assert!(
                Role::ALL.iter().any(|role| *role != Role::Manager && role.sees().contains(category)),
                "{category:?}"
            );
        }
    }

    #[test]
    fn a_receptionist_sees_no_clinical_message_and_a_nurse_no_bill() {
        assert!(!Role::FrontDesk.sees().contains(Category::Clinical));
        assert!(!Role::Nurse.sees().contains(Category::Billing));
        assert_eq!(Role::Administrator.sees(), Categories::NONE);
    }
}

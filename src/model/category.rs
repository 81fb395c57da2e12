//! What a message is about, which decides who may see it.

use serde::{Deserialize, Serialize};

/// The category of one message. `Uncategorised` is what everybody who triages sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Category {
    #[default]
    Uncategorised = 0,
    Appointment = 1,
    Refill = 2,
    Billing = 3,
    Clinical = 4,
    Records = 5,
    Other = 6,
}

impl Category {
    pub const ALL: [Self; 7] = [
        Self::Uncategorised,
        Self::Appointment,
        Self::Refill,
        Self::Billing,
        Self::Clinical,
        Self::Records,
        Self::Other,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Uncategorised => "Uncategorised",
            Self::Appointment => "Appointment",
            Self::Refill => "Refill",
            Self::Billing => "Billing",
            Self::Clinical => "Clinical",
            Self::Records => "Records",
            Self::Other => "Other",
        }
    }

    /// The name in forms and in the API.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Uncategorised => "uncategorised",
            Self::Appointment => "appointment",
            Self::Refill => "refill",
            Self::Billing => "billing",
            Self::Clinical => "clinical",
            Self::Records => "records",
            Self::Other => "other",
        }
    }

    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.slug() == slug)
    }
}

/// A set of categories as one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Categories(u8);

impl Categories {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(0x7f);

    pub const fn of(list: &[Category]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < list.len() {
            bits |= 1 << list[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, category: Category) -> bool {
        self.0 & (1 << category as u8) != 0
    }

    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn with(self, category: Category) -> Self {
        Self(self.0 | 1 << category as u8)
    }

    pub fn iter(self) -> impl Iterator<Item = Category> {
        Category::ALL.into_iter().filter(move |category| self.contains(*category))
    }
}

//! What Health and `frontdesk doctor` show about a modem.

use std::fmt;

use crate::sms::at::{Registration, StorageUse};

/// A SIM this full, in percent, wants somebody to look (requirements S7).
const FULL_PERCENT: u32 = 70;

/// Which modem and which SIM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// As the modem calls itself.
    pub model: Option<String>,
    /// 15 digits.
    pub imei: Option<String>,
    /// 19 or 20 digits; some modems do not tell.
    pub iccid: Option<String>,
    /// 15 digits, asked only where there is no ICCID.
    pub imsi: Option<String>,
}

impl Identity {
    /// What names the SIM in a source key: two SIMs never share it.
    pub fn sim(&self) -> Option<String> {
        self.iccid.clone().or_else(|| self.imsi.as_ref().map(|imsi| format!("imsi:{imsi}")))
    }
}

impl fmt::Debug for Identity {
    // A SIM's numbers lead to its owner.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// A modem as last seen.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The port is open and the modem answers.
    pub connected: bool,
    /// It takes texts.
    pub ready: bool,
    pub identity: Identity,
    /// dBm; `None` where the modem does not know.
    pub signal_dbm: Option<i16>,
    pub registration: Option<Registration>,
    /// Used and total slots of each storage that is read.
    pub storage: Vec<StorageUse>,
    /// The SIM knows its message centre; without one nothing can be sent.
    pub has_message_centre: Option<bool>,
    /// Texts that the modem announced and could not keep, since the program started (requirements S5).
    pub texts_not_stored: u64,
    /// Stored texts whose slot the modem does not free.
    pub undeletable: usize,
    /// Taking the modem's power away for a moment is what is left to try.
    pub wants_power_cycle: bool,
    /// The last thing that went wrong, without personal data.
    pub last_error: Option<String>,
}

impl Status {
    /// A storage that is nearly full.
    pub fn nearly_full(&self) -> Option<&StorageUse> {
        self.storage.iter().find(|s| s.total > 0 && u32::from(s.used) * 100 >= u32::from(s.total) * FULL_PERCENT)
    }
}

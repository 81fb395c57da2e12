//! The recovery sheet: what the contractor prints and the practice locks away.

use std::fmt::Write;

use crate::{config::Config, model::time::Timestamp, store::keyslots::recovery::RecoveryKey};

const GROUPS_A_ROW: usize = 5;

/// The sheet as plain text, ready for a printer.
pub fn recovery_sheet(config: &Config, key: &RecoveryKey, made_at: Timestamp) -> String {
    let zone = jiff::tz::TimeZone::get(&config.practice.time_zone).unwrap_or(jiff::tz::TimeZone::UTC);
    let day = made_at.to_jiff().to_zoned(zone).date();
    let mut sheet = format!(
        "Recovery key of {}, made on {day}\n\
         Print it, check it, lock it away, and keep no copy on any computer.\n\n",
        config.practice.name
    );
    let groups = key.groups();
    for (row, groups) in groups.chunks(GROUPS_A_ROW).enumerate() {
        let first = row * GROUPS_A_ROW + 1;
        let words: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
        let last = first + words.len() - 1;
        writeln!(sheet, "    groups {first:>2} to {last:>2}   {}", words.join("-")).expect("a string takes all");
    }
    sheet += "\nIt opens the records when nothing else does: type it on the page that the server shows while they are\n\
              sealed, on this machine or on another one that has a copy of the store. Small letters and spaces do as well.\n";
    sheet
}

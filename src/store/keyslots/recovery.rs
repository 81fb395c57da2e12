//! The recovery key as it is printed: 256 bits in 13 groups of five characters.
//!
//! Four characters of a group carry 20 bits in Crockford's base32, whose alphabet has no I, L, O and U; what is typed as
//! I, L or O is read as 1, 1 and 0. The fifth is a check over GF(2^5): the four, weighted by different powers of the
//! generator, plus the group's number. So one wrong character, two swapped ones, and a group that is missing or stands
//! in another's place are each noticed, and the group is named.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::store::secret::Secret;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
pub const GROUPS: usize = 13;
pub const GROUP_CHARS: usize = 5;

/// What was typed is not a recovery key as one is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryTypo {
    /// Counted from 1, as on the sheet.
    #[error("group {group} of the recovery key is mistyped: compare its five characters with the sheet")]
    Group { group: usize },
    #[error("a recovery key has 13 groups of five characters, and {found} characters were typed")]
    Length { found: usize },
    #[error("this is no recovery key")]
    Other,
}

/// A recovery key.
#[derive(Clone)]
pub struct RecoveryKey(pub(super) Secret);

/// Multiplication by the generator x in GF(2^5) modulo x^5 + x^2 + 1.
const fn times_x(a: u8) -> u8 {
    let doubled = a << 1;
    if doubled & 0x20 == 0 { doubled } else { (doubled ^ 0x25) & 0x1f }
}

/// The check character's value for the four before it in this group, counted from 0.
fn check(group: usize, values: &[u8]) -> u8 {
    // Horner's rule: the first character is weighted by x^4, the last by x.
    let sum = values.iter().fold(0, |sum, value| times_x(sum ^ value));
    sum ^ group as u8
}

fn value_of(typed: char) -> Option<u8> {
    let plain = match typed.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == plain).map(|place| place as u8)
}

impl RecoveryKey {
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// The groups, each of five characters.
    pub fn groups(&self) -> Vec<Zeroizing<String>> {
        let bytes = self.0.bytes();
        // 52 characters carry 260 bits; the last four are zero.
        let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
        let value = |place: usize| (0..5).fold(0, |value, i| value << 1 | bit(place * 5 + i));
        let group = |group: usize| {
            let values: [u8; 4] = std::array::from_fn(|i| value(group * 4 + i));
            let all = values.iter().copied().chain([check(group, &values)]);
            Zeroizing::new(all.map(|value| char::from(ALPHABET[usize::from(value)])).collect())
        };
        (0..GROUPS).map(group).collect()
    }

    /// Reads what somebody typed: letter case, spaces, hyphens and line breaks do not matter.
    pub fn parse(typed: &str) -> Result<Self, RecoveryTypo> {
        let is_gap = |c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '_' | '.');
        let values: Zeroizing<Vec<Option<u8>>> =
            Zeroizing::new(typed.chars().filter(|c| !is_gap(*c)).map(value_of).collect());
        let found = values.len();
        // A passphrase is no mistyped recovery key: what is not nearly one is not taken for one.
        let likely = values.iter().flatten().count() * 10 >= found * 9 && found.abs_diff(GROUPS * GROUP_CHARS) <= 10;
        if !likely {
            return Err(RecoveryTypo::Other);
        }
        // Where gaps were typed, they say in which group a character is missing.
        let typed_groups: Vec<usize> =
            typed.split(is_gap).map(|part| part.chars().count()).filter(|n| *n > 0).collect();
        if typed_groups.len() == GROUPS
            && let Some(group) = typed_groups.iter().position(|count| *count != GROUP_CHARS)
        {
            return Err(RecoveryTypo::Group { group: group + 1 });
        }
        let mut bits = Zeroizing::new(Vec::with_capacity(GROUPS * 20));
        for (group, typed) in values.chunks(GROUP_CHARS).enumerate().take(GROUPS) {
            let whole: Option<Vec<u8>> = typed.iter().copied().collect();
            let whole = whole.map(Zeroizing::new).filter(|values| values.len() == GROUP_CHARS);
            let right = whole.filter(|values| check(group, &values[..4]) == values[4]);
            let right = right.ok_or(RecoveryTypo::Group { group: group + 1 });
            if found != GROUPS * GROUP_CHARS && right.is_err() && typed.len() < GROUP_CHARS {
                return Err(RecoveryTypo::Length { found });
            }
            for value in &right?[..4] {
                bits.extend((0..5).rev().map(|shift| value >> shift & 1));
            }
        }
        if found != GROUPS * GROUP_CHARS {
            return Err(RecoveryTypo::Length { found });
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, eight) in bytes.iter_mut().zip(bits.chunks_exact(8)) {
            *byte = eight.iter().fold(0, |byte, bit| byte << 1 | bit);
        }
        if bits[256..].iter().any(|bit| *bit != 0) {
            return Err(RecoveryTypo::Group { group: GROUPS });
        }
        Ok(Self(Secret::copy_of(&bytes)))
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

impl Serialize for RecoveryKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RecoveryKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::deserialize(deserializer).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(key: &RecoveryKey) -> Vec<String> {
        key.groups().iter().map(|group| group.to_string()).collect()
    }

    #[test]
    fn a_printed_key_is_read_however_it_is_typed() {
        for _ in 0..200 {
            let key = RecoveryKey::random();
            let groups = printed(&key);
            assert!(groups.len() == GROUPS && groups.iter().all(|group| group.len() == GROUP_CHARS));
            let confused = groups.join("").to_lowercase().replace('1', "l").replace('0', "O");
            for typed in [groups.join(" "), groups.join("-"), format!("\n  {}\r\n", groups.join("\n")), confused] {
                assert_eq!(RecoveryKey::parse(&typed).unwrap().0.bytes(), key.0.bytes(), "{typed}");
            }
        }
    }

    #[test]
    fn every_wrong_character_and_every_swap_is_told_with_its_group() {
        let key = RecoveryKey::random();
        let groups = printed(&key);
        let whole: Vec<char> = groups.concat().chars().collect();
        for at in 0..whole.len() {
            let group = at / GROUP_CHARS + 1;
            for other in ALPHABET.map(char::from).into_iter().chain(['U', '%']).filter(|other| *other != whole[at]) {
                let mut typed = whole.clone();
                typed[at] = other;
                let typed: String = typed.iter().collect();
                assert_eq!(RecoveryKey::parse(&typed).unwrap_err(), RecoveryTypo::Group { group }, "{at} {other}");
            }
            for with in at + 1..(group * GROUP_CHARS) {
                let mut typed = whole.clone();
                typed.swap(at, with);
                if typed != whole {
                    let typed: String = typed.iter().collect();
                    assert_eq!(RecoveryKey::parse(&typed).unwrap_err(), RecoveryTypo::Group { group }, "{at} {with}");
                }
            }
        }
        for (a, b) in (0..GROUPS).flat_map(|a| (a + 1..GROUPS).map(move |b| (a, b))) {
            let mut typed = groups.clone();
            typed.swap(a, b);
            assert_eq!(RecoveryKey::parse(&typed.join(" ")).unwrap_err(), RecoveryTypo::Group { group: a + 1 });
        }
    }

    #[test]
    fn missing_and_doubled_characters_are_told() {
        let groups = printed(&RecoveryKey::random());
        for at in 0..GROUPS {
            let mut short = groups.clone();
            short[at].pop();
            assert_eq!(RecoveryKey::parse(&short.join(" ")).unwrap_err(), RecoveryTypo::Group { group: at + 1 });
            let mut long = groups.clone();
            long[at].push('7');
            assert_eq!(RecoveryKey::parse(&long.join("-")).unwrap_err(), RecoveryTypo::Group { group: at + 1 });
            let mut less = groups.clone();
            less.remove(at);
            assert!(RecoveryKey::parse(&less.join(" ")).is_err());
        }
        let missing_end = groups[..12].concat();
        assert_eq!(RecoveryKey::parse(&missing_end).unwrap_err(), RecoveryTypo::Length { found: 60 });
        let doubled = groups.concat() + "00000";
        assert_eq!(RecoveryKey::parse(&doubled).unwrap_err(), RecoveryTypo::Length { found: 70 });
    }

    #[test]
    fn a_passphrase_is_not_taken_for_a_recovery_key() {
        for typed in ["", "correct horse battery staple", &"ö".repeat(65), "12345", &"AB".repeat(500)] {
            assert_eq!(RecoveryKey::parse(typed).unwrap_err(), RecoveryTypo::Other, "{typed}");
        }
    }
}

//! The GSM 7-bit alphabets (3GPP TS 23.038 section 6.2 and annex A) and their packing into octets.
//!
//! Sending uses the default alphabet and its extension only: every telephone reads those. Receiving also
//! follows the national tables that a text's header names.

/// Leads over to the extension or single shift table for one character.
pub const ESCAPE: u8 = 0x1b;

/// Section 6.2.1. Position 0x1B is the escape itself and never looked up.
const DEFAULT: &str = concat!(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u{1b}ÆæßÉ",
    " !\"#¤%&'()*+,-./0123456789:;<=>?",
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§",
    "¿abcdefghijklmnopqrstuvwxyzäöñüà",
);

/// Section A.3.1.
const TURKISH_LOCKING: &str = concat!(
    "@£$¥€éùıòÇ\nĞğ\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u{1b}ŞşßÉ",
    " !\"#¤%&'()*+,-./0123456789:;<=>?",
    "İABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§",
    "çabcdefghijklmnopqrstuvwxyzäöñüà",
);

/// Section A.3.3. Spanish has no locking table (A.3.2).
const PORTUGUESE_LOCKING: &str = concat!(
    "@£$¥êéúíóç\nÔô\rÁáΔ_ªÇÀ∞^\\€Ó|\u{1b}ÂâÊÉ",
    " !\"#º%&'()*+,-./0123456789:;<=>?",
    "ÍABCDEFGHIJKLMNOPQRSTUVWXYZÃÕÚÜ§",
    "~abcdefghijklmnopqrstuvwxyzãõ`üà",
);

/// Section 6.2.1.1: what follows an escape, by septet.
const EXTENSION: &[(u8, char)] = &[
    (0x0a, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2f, '\\'),
    (0x3c, '['),
    (0x3d, '~'),
    (0x3e, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

/// Sections A.2.1 to A.2.3: what these tables have beyond [`EXTENSION`].
const TURKISH_SINGLE: &[(u8, char)] =
    &[(0x47, 'Ğ'), (0x49, 'İ'), (0x53, 'Ş'), (0x63, 'ç'), (0x67, 'ğ'), (0x69, 'ı'), (0x73, 'ş')];
const SPANISH_SINGLE: &[(u8, char)] = &[
    (0x09, 'ç'),
    (0x41, 'Á'),
    (0x49, 'Í'),
    (0x4f, 'Ó'),
    (0x55, 'Ú'),
    (0x61, 'á'),
    (0x69, 'í'),
    (0x6f, 'ó'),
    (0x75, 'ú'),
];
const PORTUGUESE_SINGLE: &[(u8, char)] = &[
    (0x05, 'ê'),
    (0x09, 'ç'),
    (0x0b, 'Ô'),
    (0x0c, 'ô'),
    (0x0e, 'Á'),
    (0x0f, 'á'),
    (0x12, 'Φ'),
    (0x13, 'Γ'),
    (0x15, 'Ω'),
    (0x16, 'Π'),
    (0x17, 'Ψ'),
    (0x18, 'Σ'),
    (0x19, 'Θ'),
    (0x1f, 'Ê'),
    (0x41, 'À'),
    (0x49, 'Í'),
    (0x4f, 'Ó'),
    (0x55, 'Ú'),
    (0x5b, 'Ã'),
    (0x5c, 'Õ'),
    (0x61, 'Â'),
    (0x69, 'í'),
    (0x6f, 'ó'),
    (0x75, 'ú'),
    (0x7b, 'ã'),
    (0x7c, 'õ'),
    (0x7f, 'â'),
];

/// A national language that has tables of its own (3GPP TS 23.038 section 6.2.1.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Turkish,
    Spanish,
    Portuguese,
}

impl Language {
    /// By national language identifier. A language without tables here reads as the default alphabet,
    /// as section 6.2.1.2.2 tells a receiver to do.
    pub fn from_identifier(identifier: u8) -> Option<Self> {
        match identifier {
            1 => Some(Self::Turkish),
            2 => Some(Self::Spanish),
            3 => Some(Self::Portuguese),
            _ => None,
        }
    }
}

/// Which tables a text's header selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shifts {
    pub locking: Option<Language>,
    pub single: Option<Language>,
}

/// The septets of one character: one, or the escape and one.
pub fn septets_of(c: char) -> Option<([u8; 2], usize)> {
    if c == '\u{1b}' {
        return None;
    }
    if let Some(at) = DEFAULT.chars().position(|known| known == c) {
        return Some(([at as u8, 0], 1));
    }
    EXTENSION.iter().find(|(_, known)| *known == c).map(|(septet, _)| ([ESCAPE, *septet], 2))
}

/// The text as septets, or `None` where a character is in neither table.
pub fn encode(text: &str) -> Option<Vec<u8>> {
    let mut septets = Vec::with_capacity(text.len());
    for c in text.chars() {
        let (pair, count) = septets_of(c)?;
        septets.extend_from_slice(&pair[..count]);
    }
    Some(septets)
}

/// Septets as text. An unknown escaped septet reads as the one in the main table, and a lone escape at the
/// end as nothing (section 6.2.1.1, note 1).
pub fn decode(septets: &[u8], shifts: Shifts) -> String {
    let main = match shifts.locking {
        Some(Language::Turkish) => TURKISH_LOCKING,
        Some(Language::Portuguese) => PORTUGUESE_LOCKING,
        Some(Language::Spanish) | None => DEFAULT,
    };
    let main: Vec<char> = main.chars().collect();
    let national = match shifts.single {
        Some(Language::Turkish) => TURKISH_SINGLE,
        Some(Language::Spanish) => SPANISH_SINGLE,
        Some(Language::Portuguese) => PORTUGUESE_SINGLE,
        None => &[],
    };
    let mut text = String::with_capacity(septets.len());
    let mut escaped = false;
    for septet in septets.iter().map(|septet| septet & 0x7f) {
        if septet == ESCAPE {
            // Two escapes are reserved for a further table and read as a space.
            if escaped {
                text.push(' ');
            }
            escaped = !escaped;
            continue;
        }
        let shifted = escaped
            .then(|| national.iter().chain(EXTENSION).find(|(known, _)| *known == septet).map(|(_, c)| *c))
            .flatten();
        text.push(shifted.unwrap_or(main[usize::from(septet)]));
        escaped = false;
    }
    text
}

/// Packs septets, low bits first, after `fill_bits` (0 to 6) zero bits that align them behind a header
/// (3GPP TS 23.038 section 6.1.2.1).
pub fn pack(septets: &[u8], fill_bits: usize) -> Vec<u8> {
    let mut octets = vec![0u8; (fill_bits + septets.len() * 7).div_ceil(8)];
    for (i, septet) in septets.iter().enumerate() {
        let bit = fill_bits + i * 7;
        let wide = u16::from(septet & 0x7f) << (bit % 8);
        octets[bit / 8] |= wide as u8;
        if let Some(next) = octets.get_mut(bit / 8 + 1) {
            *next |= (wide >> 8) as u8;
        }
    }
    octets
}

/// Unpacks at most `count` septets: fewer where the octets end early.
pub fn unpack(octets: &[u8], fill_bits: usize, count: usize) -> Vec<u8> {
    let whole = (octets.len() * 8).saturating_sub(fill_bits) / 7;
    (0..count.min(whole))
        .map(|i| {
            let bit = fill_bits + i * 7;
            let low = u16::from(octets[bit / 8]);
            let high = octets.get(bit / 8 + 1).copied().map_or(0, u16::from);
            ((low | high << 8) >> (bit % 8)) as u8 & 0x7f
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tables_have_a_character_for_each_septet() {
        for table in [DEFAULT, TURKISH_LOCKING, PORTUGUESE_LOCKING] {
            let chars: Vec<char> = table.chars().collect();
            assert_eq!(chars.len(), 128);
            assert_eq!(chars[usize::from(ESCAPE)], '\u{1b}');
            assert_eq!((chars[0x0a], chars[0x0d], chars[0x20], chars[0x41]), ('\n', '\r', ' ', 'A'));
        }
    }

    #[test]
    fn packing_follows_the_standard() {
        assert_eq!(pack(&encode("hellohello").unwrap(), 0), [0xe8, 0x32, 0x9b, 0xfd, 0x46, 0x97, 0xd9, 0xec, 0x37]);
        assert_eq!(encode("€[").unwrap(), [0x1b, 0x65, 0x1b, 0x3c]);
        assert_eq!(encode("día"), None, "í has no place in the default alphabet");
        assert_eq!(encode("\u{1b}"), None, "a sender cannot smuggle an escape in");
    }

    #[test]
    fn national_tables_apply_only_when_named() {
        let turkish = Shifts { locking: Some(Language::Turkish), single: Some(Language::Turkish) };
        assert_eq!(decode(&[0x04, 0x07, 0x0b, 0x0c, 0x1c, 0x1d, 0x40, 0x60], turkish), "€ıĞğŞşİç");
        assert_eq!(decode(&[ESCAPE, 0x53, ESCAPE, 0x69, ESCAPE, 0x65, ESCAPE, 0x14], turkish), "Şı€^");
        let spanish = Shifts { locking: Some(Language::Spanish), single: Some(Language::Spanish) };
        assert_eq!(decode(&[0x44, ESCAPE, 0x69, 0x61, 0x73, ESCAPE, 0x49], spanish), "DíasÍ");
        let portuguese = Shifts { locking: Some(Language::Portuguese), single: Some(Language::Portuguese) };
        assert_eq!(decode(&[0x05, 0x06, 0x12, 0x18, 0x7b, 0x7c, ESCAPE, 0x7f], portuguese), "éúª€ãõâ");
        assert_eq!(decode(&[0x04, ESCAPE, 0x53], Shifts::default()), "èS", "unknown escapes show the main table");
        assert_eq!(decode(&[0x41, ESCAPE, ESCAPE, 0x42, ESCAPE], Shifts::default()), "A B");
    }

    proptest! {
        #[test]
        fn packing_round_trips(septets in proptest::collection::vec(0u8..128, 0..200), fill in 0usize..7) {
            prop_assert_eq!(unpack(&pack(&septets, fill), fill, septets.len()), septets);
        }

        #[test]
        fn alphabet_round_trips(text in "[@£$¥èéΔΩa-zA-Z0-9 \\r\\n^{}\\[\\]~|€]{0,160}") {
            let septets = encode(&text).unwrap();
            prop_assert_eq!(decode(&septets, Shifts::default()), text);
        }
    }
}

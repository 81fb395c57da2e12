use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{
    address::{Address, PhoneNumber},
    parsed::{Parsed, ParsedText, ReportOutcome, TextContent, TextPart},
    time::{Claimed, Offset, Timestamp},
};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

fn text_of(pdu: &str) -> ParsedText {
    match decode(&hex(pdu), "US") {
        Ok(Parsed::Text(text)) => text,
        _ => panic!("no text: {pdu}"),
    }
}

fn phone(text: &str) -> Address {
    Address::Phone(PhoneNumber::from_e164(text).unwrap())
}

/// SMSC +1 415 555 0199, from +1 415 555 0142, 29 March 1999 15:16:59 two hours east of UTC, "hellohello".
const HELLO: &str = "07914151550591F9 04 0B914151550541F2 00 00 99309251619580 0A E8329BFD4697D9EC37";

#[test]
fn plain_delivery() {
    let text = text_of(HELLO);
    assert!(text.from == phone("+14155550142"));
    assert!(text.content == TextContent::Text("hellohello".into()));
    assert_eq!(text.part, None);
    let sent = text.sent.unwrap();
    assert_eq!((sent.at.to_string().as_str(), sent.offset), ("1999-03-29T13:16:59Z", Offset(120)));
}

#[test]
fn senders() {
    let from = |address: &str| text_of(&format!("00 04 {address} 00 00 99309251619580 01 41")).from;
    for (address, expected) in [
        // International, national with and without the trunk digit.
        ("0C 91 447700091032", phone("+447700900123")),
        ("0A A1 1455551024", phone("+14155550142")),
        ("0B 81 4151550541F2", phone("+14155550142")),
        // Short codes, also where a network calls them international.
        ("05 81 2143F5", Address::Named("12345".into())),
        ("06 91 214365", Address::Named("123456".into())),
        ("06 C9 214365", Address::Named("123456".into())),
        // Neither a short code nor a number of this country: nothing is invented.
        ("08 81 21436587", Address::Named("12345678".into())),
        ("00 91", Address::Unknown),
        ("00 D0", Address::Unknown),
    ] {
        assert!(from(address) == expected, "{address}: {}", from(address).display_in("US"));
    }
    // "Clinic" is 42 bits: 11 semi-octets; D0 and D1 read alike.
    let name = data_encoding::HEXUPPER.encode(&gsm7::pack(&gsm7::encode("Clinic").unwrap(), 0));
    for kind in ["D0", "D1"] {
        assert!(from(&format!("0B {kind} {name}")) == Address::Named("Clinic".into()));
    }
    assert!(from("03 81 21F3") == Address::Named("123".into()));
    assert!(from("04 81 A1B2") == Address::Named("1*2#".into()));
}

#[test]
fn zones_and_broken_stamps() {
    let sent = |stamp: &str| text_of(&format!("00 04 0B914151550541F2 00 00 {stamp} 01 41")).sent;
    // Seven hours west: 28 quarters, and bit 3 says minus.
    let west = sent("6221114180008A").unwrap();
    assert_eq!((west.at.to_string().as_str(), west.offset), ("2026-12-11T21:08:00Z", Offset(-420)));
    assert_eq!(sent("622111418000FF").unwrap().offset, Offset(0));
    assert!(sent("00000000000000").is_none(), "month 0");
    assert!(sent("FFFFFFFFFFFFFF").is_none());
    assert!(sent("62219F41800000").is_none(), "day F9");
}

#[test]
fn extension_and_headers() {
    let content = |tail: &str| text_of(&format!("00 44 0B914151550541F2 00 {tail}"));
    // 8-bit joining header, one fill bit, "A".
    let part = content("00 99309251619580 08 050003CC0201 82");
    assert_eq!(part.part, Some(TextPart { reference: 0xcc, reference_bits: 8, total: 2, number: 1 }));
    assert!(part.content == TextContent::Text("A".into()));
    // 16-bit reference 0, which is legal; 56 bits of header need no fill.
    let part = content("00 99309251619580 09 0608040000 0302 41");
    assert_eq!(part.part, Some(TextPart { reference: 0, reference_bits: 16, total: 3, number: 2 }));
    assert!(part.content == TextContent::Text("A".into()));
    // Numbers that make no sense are ignored, the text is not.
    for header in ["050003CC0003", "050003CC0200", "050003CC0203"] {
        let odd = content(&format!("00 99309251619580 08 {header} 82"));
        assert_eq!(odd.part, None);
        assert!(odd.content == TextContent::Text("A".into()));
    }
    // Turkish locking shift (0x25) and single shift (0x24): 4 and 7 octets of header.
    let turkish = data_encoding::HEXUPPER.encode(&gsm7::pack(&[0x0b, 0x07], 3));
    let text = content(&format!("00 99309251619580 07 03250101 {turkish}"));
    assert!(text.content == TextContent::Text("Ğı".into()));
    let turkish = data_encoding::HEXUPPER.encode(&gsm7::pack(&[0x1b, 0x53, 0x0b], 0));
    let text = content(&format!("00 99309251619580 0B 06250101240101 {turkish}"));
    assert!(text.content == TextContent::Text("ŞĞ".into()));
}

#[test]
fn alphabets() {
    let content = |coding: &str, tail: &str| {
        text_of(&format!("00 04 0B914151550541F2 00 {coding} 99309251619580 {tail}")).content
    };
    let is = |content: TextContent, text: &str| content == TextContent::Text(text.into());
    assert!(is(content("08", "04 D83DDE00"), "😀"));
    assert!(is(content("08", "03 004100"), "A"), "an odd octet is dropped");
    assert!(is(content("10", "01 41"), "A"), "class 0 is shown like any other");
    assert!(is(content("F0", "01 41"), "A"));
    assert!(is(content("C8", "01 41"), "A"), "message waiting");
    assert!(is(content("E8", "02 0041"), "A"));
    assert!(is(content("00", "00"), ""));
    assert!(content("04", "02 0102") == TextContent::Data);
    assert!(content("F5", "02 0102") == TextContent::Data);
    assert!(content("20", "02 0102") == TextContent::Data, "compressed");
}

#[test]
fn picture_announcements() {
    let push = text_of("00 44 0B914151550541F2 00 04 99309251619580 0A 06 05040B8423F0 01 06 26");
    assert!(push.content == TextContent::Picture);
    let part = text_of("00 44 0B914151550541F2 00 F5 99309251619580 0F 0B 05040B8423F0 0003330201 01 06 26");
    assert!(part.content == TextContent::Picture);
    assert_eq!(part.part.map(|part| (part.total, part.number)), Some((2, 1)));
    let other_port = text_of("00 44 0B914151550541F2 00 04 99309251619580 0A 06 0504158A0000 01 06 26");
    assert!(other_port.content == TextContent::Data);
}

#[test]
fn parts_of_utf16_stay_units() {
    let text = format!("{}😀", "a".repeat(66)) + &"ж".repeat(10);
    let at = Claimed { at: Timestamp::from_seconds(1_700_000_000), offset: Offset(-480) };
    let parts = encode_deliver("+14155550142", &text, at, 0).unwrap();
    assert_eq!(parts.len(), 2);
    let mut units = Vec::new();
    for part in &parts {
        let Ok(Parsed::Text(ParsedText { content: TextContent::Utf16(part), sent, .. })) = decode(part, "US") else {
            panic!("a part in UCS2 must stay units");
        };
        assert_eq!(sent, Some(at));
        // Sending never splits a pair, so each part is whole.
        assert!(String::from_utf16(&part).is_ok());
        units.extend(part);
    }
    assert_eq!(String::from_utf16(&units).unwrap(), text);
}

#[test]
fn status_reports() {
    let report = |status: u8| {
        let at = Claimed { at: Timestamp::from_seconds(1_700_000_000), offset: Offset(0) };
        match decode(&encode_status_report(200, "+14155550142", at, at, status), "US") {
            Ok(Parsed::Report(report)) => report,
            _ => panic!("no report"),
        }
    };
    assert_eq!(report(0).reference, 200);
    assert!(report(0).recipient.as_ref().map(PhoneNumber::as_e164) == Some("+14155550142"));
    for (status, outcome) in [
        (0x00, ReportOutcome::Delivered),
        (0x01, ReportOutcome::Pending),
        (0x02, ReportOutcome::Delivered),
        (0x20, ReportOutcome::Pending),
        (0x30, ReportOutcome::Pending),
        (0x41, ReportOutcome::Failed),
        (0x60, ReportOutcome::Failed),
        (0x80, ReportOutcome::Failed),
    ] {
        assert_eq!((report(status).outcome, report(status).status), (outcome, status), "{status:#x}");
    }
    let whole = hex("00 06 C8 0B914151550541F2 99309251619580 99309251619580 00");
    assert!(decode(&whole, "US").is_ok());
    assert!(decode(&whole[..whole.len() - 1], "US").is_err(), "without its outcome a report says nothing");
}

#[test]
fn cut_short_it_still_shows_its_sender() {
    let whole = hex(HELLO);
    let sender_ends = 8 + 1 + 8;
    for end in 0..whole.len() {
        match decode(&whole[..end], "US") {
            Err(_) => assert!(end < sender_ends, "{end}"),
            Ok(Parsed::Text(text)) => {
                assert!(end >= sender_ends && text.from == phone("+14155550142"), "{end}");
                match text.content {
                    TextContent::Text(text) => assert!("hellohello".starts_with(&text), "{end}"),
                    content => assert!(content == TextContent::Data, "{end}"),
                }
            }
            Ok(_) => panic!("not a text"),
        }
    }
}

#[test]
fn submit_as_the_standard_writes_it() {
    let to = PhoneNumber::from_e164("+14155550142").unwrap();
    let four_days = Duration::from_secs(4 * 86_400);
    let submit = Submit { to: &to, text: "hellohello", reference: 7, report: false, validity: four_days };
    let pdus = encode_submit(&submit).unwrap();
    assert_eq!(pdus.len(), 1);
    assert_eq!(pdus[0].hex(), "0011000B914151550541F20000AA0AE8329BFD4697D9EC37");
    assert_eq!(pdus[0].tpdu_octets(), 23);
    let reported = encode_submit(&Submit { report: true, ..submit }).unwrap();
    assert_eq!(reported[0].bytes()[1], 0x31);
    assert!(decode_submit(reported[0].bytes(), "US").unwrap().wants_report);
    assert_eq!(decode_submit(&reported[0].bytes()[..20], "US"), Err(NotASubmit));
    assert_eq!(decode_submit(&hex(HELLO), "US"), Err(NotASubmit));
    assert!(decode(reported[0].bytes(), "US").is_err());
}

fn join(contents: impl IntoIterator<Item = TextContent>) -> String {
    let mut units = Vec::new();
    for content in contents {
        match content {
            TextContent::Text(text) => units.extend(text.encode_utf16()),
            TextContent::Utf16(part) => units.extend(part),
            _ => panic!("no text"),
        }
    }
    String::from_utf16(&units).unwrap()
}

proptest! {
    #[test]
    fn texts_round_trip(text in "(\\PC|[a-z €{}\\n]){0,400}", reference: u16, seconds in 0i64..2_000_000_000, quarters in -48i16..=56) {
        let text = text.replace('\r', "");
        let at = Claimed { at: Timestamp::from_seconds(seconds + 700_000_000), offset: Offset(quarters * 15) };
        let to = PhoneNumber::from_e164("+14155550142").unwrap();

        let delivered = encode_deliver("+14155550142", &text, at, reference).unwrap();
        let submitted = encode_submit(&Submit { to: &to, text: &text, reference, report: true, validity: Duration::from_secs(60) }).unwrap();
        prop_assert_eq!(delivered.len(), segments(&text).parts);
        prop_assert_eq!(submitted.len(), delivered.len());

        let mut contents = Vec::new();
        for (i, pdu) in delivered.iter().enumerate() {
            let Ok(Parsed::Text(part)) = decode(pdu, "US") else { panic!("unreadable") };
            prop_assert_eq!(part.sent, Some(at));
            prop_assert_eq!(part.part.map(|part| (part.reference, usize::from(part.number))),
                (delivered.len() > 1).then_some((reference & 0xff, i + 1)));
            contents.push(part.content);
        }
        prop_assert_eq!(join(contents), text.clone());
        let contents = submitted.iter().map(|pdu| {
            assert!(pdu.tpdu_octets() <= 140 + 13 + 1);
            decode_submit(pdu.bytes(), "US").unwrap().content
        });
        prop_assert_eq!(join(contents), text);
    }
}

#[test]
fn damaged_pdus_never_panic() {
    let at = Claimed { at: Timestamp::from_seconds(1_700_000_000), offset: Offset(60) };
    let mut seeds: Vec<Vec<u8>> = vec![
        hex(HELLO),
        hex("00 44 0B914151550541F2 00 F5 99309251619580 0F 0B 05040B8423F0 0003330201 01 06 26"),
        encode_status_report(3, "+14155550142", at, at, 0),
        hex("0011000B914151550541F20000AA0AE8329BFD4697D9EC37"),
    ];
    seeds.extend(encode_deliver("Clinic", &"Größe 😀 ".repeat(30), at, 9).unwrap());
    seeds.extend(encode_deliver("12345", &"[€] ".repeat(90), at, 9).unwrap());
    // A fixed xorshift: a failure repeats.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..50_000 {
        let mut pdu = seeds[random(seeds.len())].clone();
        for _ in 0..=random(4) {
            let at = random(pdu.len().max(1));
            match random(4) {
                0 => pdu.truncate(at),
                1 => pdu.insert(at.min(pdu.len()), random(256) as u8),
                _ if pdu.is_empty() => {}
                2 => pdu[at] = random(256) as u8,
                _ => pdu[at] ^= 1 << random(8),
            }
        }
        let _ = decode(&pdu, "US");
        let _ = decode_submit(&pdu, "DE");
    }
}

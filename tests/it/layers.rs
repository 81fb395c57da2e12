//! Who may know whom: the table in `src/lib.rs`, checked against every `crate::` path in the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each room and the rooms that it may name. A path such as `sms::pdu` allows that part alone.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &["model"]),
    ("systemd", &[]),
    ("harden", &[]),
    ("store", &["model", "clock", "harden"]),
    ("mail", &["model", "clock"]),
    ("sms", &["model", "clock"]),
    ("voicemail", &["model", "clock"]),
    ("inbox", &["store", "model", "clock"]),
    ("config", &["mail", "sms", "voicemail", "inbox", "model"]),
    ("gate", &["model", "clock"]),
    (
        "jobs",
        &[
            "gate",
            "inbox",
            "mail",
            "sms",
            "voicemail",
            "config",
            "model",
            "clock",
            "systemd",
            "store::seal",
            "store::waiting",
        ],
    ),
    ("web", &["gate", "inbox", "model", "clock", "store::schema"]),
    ("admin", &["gate", "harden", "inbox", "jobs::supervisor", "model", "store::keyslots"]),
    ("demo", &["model", "clock", "sms::pdu", "voicemail::audio"]),
];

/// Crates that only one room may name.
const OWNED: &[(&str, &str)] = &[
    ("sled::", "store"),
    ("ring::aead", "store"),
    ("hpke::", "store"),
    ("axum::", "web"),
    ("askama::", "web"),
    ("async_imap::", "mail"),
    ("lettre::", "mail"),
    ("mail_parser::", "mail"),
    ("serialport::", "sms"),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file below `src` with its room: the first part of its path.
fn rooms() -> Vec<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&src).unwrap();
            let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
            let room = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (room, relative.display().to_string(), without_comments(&text))
        })
        .collect()
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths after `crate::`, with one level of braces opened: `crate::{a::b, c}` gives `a::b` and `c`.
fn named(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            paths.insert(path_of(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    paths.insert(path_of(group[start..i].trim()));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    paths.insert(path_of(group[start..i].trim()));
                    start = i + 1;
                }
                _ => {}
            }
        }
    }
    paths.remove("");
    paths
}

fn path_of(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect()
}

/// A room that looks into one above it, or beside it, is found before it becomes a habit.
#[test]
fn every_room_knows_only_the_rooms_below() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, file, text) in rooms() {
        if ["app", "main", "lib"].contains(&room.as_str()) {
            continue;
        }
        let may = allowed.get(room.as_str()).unwrap_or_else(|| panic!("the map has no room {room:?}"));
        for path in named(&text) {
            let inside = path == room || path.starts_with(&format!("{room}::"));
            let known = may.iter().any(|known| path == *known || path.starts_with(&format!("{known}::")));
            if !inside && !known {
                wrong.push(format!("{file} names crate::{path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_the_room_that_owns_them() {
    let mut wrong = Vec::new();
    for (room, file, text) in rooms() {
        for (name, owner) in OWNED {
            if text.contains(name) && room != *owner && !text.contains(&format!("crate::{name}")) {
                wrong.push(format!("{file} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_reads_groups() {
    let text = "use crate::{\n a::{b, c},\n d,\n};\nuse crate::e::f;\nmycrate::no; x(crate::g::h())";
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["a::", "d", "e::f", "g::h"]);
}

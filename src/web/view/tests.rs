//! Every page, rendered with an invented practice.

use askama::Template as _;

use super::{samples::*, *};

#[test]
fn no_page_needs_what_the_content_security_policy_forbids() {
    for (name, page) in pages() {
        let lower = page.to_lowercase();
        for forbidden in [" style=", "<style", "javascript:", "data:", " onclick=", " onload=", " onsubmit=", "http://"]
        {
            assert!(!lower.contains(forbidden), "{name} contains {forbidden}");
        }
        for script in lower.match_indices("<script").map(|(at, _)| &lower[at..]) {
            assert!(script.starts_with("<script type=\"module\" src=\"/assets/"), "{name} has an inline script");
        }
    }
}

/// Two parts of the pages that go by the same name would spoil each other.
#[test]
fn no_class_is_styled_in_two_places() {
    let css = include_str!("../assets/app.css");
    let alone = |line: &'static str| line.strip_prefix('.')?.split_once(" {").map(|(name, _)| name);
    let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let mut names: Vec<&str> = css.lines().filter_map(alone).filter(is_plain).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(count > 50 && names.len() == count, "{} of {count} are different", names.len());
}

#[test]
fn what_people_write_stays_text() {
    let hostile = "<img src=x onerror=alert(1)>\"'&<script>";
    let mut talk = conversation(entries());
    talk.title = hostile.to_owned();
    talk.composer.text = format!("</textarea>{hostile}");
    for entry in &mut talk.entries {
        match entry {
            Entry::Inbound(message) => {
                message.text = hostile.to_owned();
                message.subject = Some(hostile.to_owned());
                message.from = hostile.to_owned();
                message.files.iter_mut().for_each(|file| file.name = hostile.to_owned());
            }
            Entry::Note(note) => note.text = hostile.to_owned(),
            _ => {}
        }
    }
    let mut list = list(Some(0));
    list.items[0].preview = hostile.to_owned();
    let page = inbox(list, Pane::Conversation(Box::new(talk))).render().unwrap();
    assert!(!page.contains("<img src=x") && !page.contains("</textarea>&#60;img") && page.contains("&#60;img src=x"));
    assert!(inbox(search(hostile, 0), Pane::Nothing).render().is_ok_and(|page| !page.contains("<img src=x")));
}

#[test]
fn no_id_stands_twice_on_a_page() {
    for (name, page) in pages() {
        let mut ids: Vec<&str> =
            page.match_indices(" id=\"").filter_map(|(at, _)| page[at + 5..].split('"').next()).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "{name}");
    }
}

#[test]
fn a_revision_changes_with_what_is_shown_and_only_then() {
    let revision = |state| Entry::Outbound(Box::new(outbound("m1", state))).revision();
    assert_eq!(revision(SendState::HandingOver), revision(SendState::HandingOver));
    assert_ne!(revision(SendState::HandingOver), revision(SendState::Sent { at: when("10:02") }));
}

#[test]
fn a_conversation_that_nobody_may_see_leaks_nothing() {
    let page = inbox(list(None), Pane::Restricted { categories: vec![] }).render().unwrap();
    let pane = &page[page.find("id=\"conversation\"").unwrap()..];
    assert!(pane.contains("Restricted") && !pane.contains("Eleanor"));
}

#[test]
fn only_what_has_not_left_offers_undo() {
    for state in
        [SendState::HandingOver, SendState::Sent { at: when("1") }, SendState::Unconfirmed { since: when("1") }]
    {
        let slug = state.slug();
        let talk = conversation(vec![Entry::Outbound(Box::new(outbound("m1", state)))]);
        let page = ConversationPart { pane: Pane::Conversation(Box::new(talk)), toast: None }.render().unwrap();
        assert!(!page.contains("/messages/m1/undo") && page.contains(&format!("data-state=\"{slug}\"")));
    }
}

#[test]
fn views_are_found_by_their_path() {
    assert!(View::ALL.into_iter().all(|view| View::from_slug(view.slug()) == Some(view)));
    assert_eq!(View::from_slug("urgent"), None);
}

//! Texts: parts become one message (requirements S8), and STOP, START and HELP are answered (requirements S22).

use super::{
    Inbox, InboxError,
    desk::Desk,
    file::{Arrival, continued},
    outbox,
    work::readable,
};
use crate::{
    model::{
        address::{Address, PhoneNumber},
        audit::{Action, Actor, Outcome},
        category::Category,
        conversation::Conversation,
        ids::{ConversationId, MessageId, RawId},
        line::{Channel, LineId},
        message::{Entry, Event, Inbound, InboundDetail, Message},
        parsed::{Automatic, ParsedText, TextContent, TextPart},
        time::Timestamp,
    },
    store::{
        Readable, Records, StoreError,
        engine::Direction,
        schema::{self, Lookup, OptOut, PartSet, RawRecord},
    },
};

/// An incomplete text is shown after this time, counted from its first part.
const SHOW_PARTS_AFTER_MS: i64 = 5 * 60 * 1000;
/// Parts that come later than this after the first are those of another text: networks give up after a week.
const COMPLETE_WITHIN_MS: i64 = 7 * 24 * 3600 * 1000;
/// Parts of a complete text that come once more within this time are the network's repetition.
const REPEAT_WITHIN_MS: i64 = 3600 * 1000;
/// Answers to keywords that one number gets in a day: two machines that answer each other would use up the line.
const MAX_ANSWERS_A_DAY: usize = 6;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Sets of parts that are looked at in one step.
pub(super) const PAGE: usize = 500;

/// What a whole text asks this program to do (CTIA Messaging Principles, section 5.1.3, and Spanish equivalents).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyword {
    Stop,
    Start,
    Help,
}

/// The keyword that a text is, if it is nothing but one: any case, with punctuation around it.
fn keyword(text: &str) -> Option<Keyword> {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    match words.join(" ").as_str() {
        "stop" | "stopall" | "stop all" | "quit" | "end" | "revoke" | "opt out" | "opt-out" | "optout" | "cancel"
        | "unsubscribe" | "alto" | "parar" | "detener" | "cancelar" | "no más" | "no mas" | "basta" => {
            Some(Keyword::Stop)
        }
        "start" | "unstop" | "opt in" | "opt-in" | "empezar" | "comenzar" | "iniciar" => Some(Keyword::Start),
        "help" | "info" | "ayuda" => Some(Keyword::Help),
        _ => None,
    }
}

fn parts_lookup(desk: &Desk<'_, '_>, line: &LineId, from: &Address, part: &TextPart) -> Lookup {
    let key = format!("{line}\n{}\n{}\n{}\n{}", from.key(), part.reference, part.reference_bits, part.total);
    desk.lookup("text parts", key.as_bytes())
}

/// Text of the parts in order; UTF-16 is decoded after joining, so that a pair split over two parts survives.
fn join(parts: &[&TextContent]) -> String {
    let mut text = String::new();
    let mut units = Vec::new();
    for part in parts {
        if let TextContent::Utf16(more) = part {
            units.extend_from_slice(more);
            continue;
        }
        text.push_str(&String::from_utf16_lossy(&units));
        units.clear();
        match part {
            TextContent::Text(more) => text.push_str(more),
            TextContent::Utf16(_) => {}
            TextContent::Picture => text.push_str("[picture message]"),
            TextContent::Data => text.push_str("[data]"),
        }
    }
    text.push_str(&String::from_utf16_lossy(&units));
    text
}

pub(super) fn file_text(
    desk: &mut Desk<'_, '_>,
    raw: RawId,
    record: &RawRecord,
    text: &ParsedText,
) -> Result<(), InboxError> {
    // A place outside the text is nonsense: such a part is shown alone.
    let is_part = |part: &TextPart| part.total > 1 && (1..=part.total).contains(&part.number);
    let Some(part) = text.part.filter(is_part) else {
        let (body, remarks) = match &text.content {
            TextContent::Picture => (String::new(), vec!["Picture message, cannot be shown".to_owned()]),
            TextContent::Data => (String::new(), vec!["Data message, cannot be shown".to_owned()]),
            content => (join(&[content]), Vec::new()),
        };
        return enter(desk, raw, record, text, body, remarks, None).map(|_| ());
    };
    let lookup = parts_lookup(desk, &record.line, &text.from, &part);
    // Where it is damaged, what came before is lost to this text; its raw items are kept.
    let mut set = match desk.txn.read(&schema::TEXT_PARTS, &lookup).readable()? {
        // Phones use their few references again: this is a part of another text.
        Some(old)
            if (is_over(&old, desk.now()) && desk.may_delete_by_age()) || contradicts(&old, part, &text.content) =>
        {
            show_incomplete(desk, &old)?;
            None
        }
        known => known,
    }
    .unwrap_or_else(|| PartSet {
        first_at: desk.now(),
        from: text.from.clone(),
        raw,
        more_raws: Vec::new(),
        message: None,
        parts: Vec::new(),
    });
    if set.raw != raw {
        set.more_raws.push(raw);
    }
    let actor = Actor::Line(record.line.clone());
    if set.parts.iter().any(|(known, _)| known.number == part.number) {
        save_parts(desk, &lookup, &set)?;
        return Ok(desk.audit(actor, Action::Filed, [raw.0], Outcome::Done)?);
    }
    set.parts.push((part, text.content.clone()));
    set.parts.sort_by_key(|(part, _)| part.number);
    let missing = missing(&set);
    let shown_as = match set.message {
        Some((_, id)) => desk.readable_message(id)?,
        None => None,
    };
    // One that was shown and is damaged since is shown anew.
    set.message = shown_as.as_ref().map(|message| (message.conversation, message.id));
    match shown_as {
        Some(mut message) => {
            let id = message.id;
            if let Entry::Inbound(inbound) = &mut message.entry {
                inbound.text = shown(&set);
                inbound.detail = InboundDetail::Text { missing };
            }
            desk.save_message(&message)?;
            let mut conversation = desk.conversation(message.conversation)?;
            conversation.grew(&message, desk.now());
            if !conversation.is_open() {
                conversation.resolved_at = None;
                desk.note_event(&mut conversation, None, message.category, Event::Reopened)?;
            }
            desk.save_conversation(conversation)?;
            desk.audit(actor, Action::Filed, [raw.0, id.0], Outcome::Done)?;
        }
        None if missing.is_none() => {
            let message = enter(desk, raw, record, text, shown(&set), Vec::new(), None)?;
            set.message = Some((message.conversation, message.id));
        }
        None => desk.audit(actor, Action::Filed, [raw.0], Outcome::Done)?,
    }
    save_parts(desk, &lookup, &set)
}

/// Keeps what has come of a text, under the data key of its first part; once it is shown, its message knows all its raw
/// items, so that it can be shredded as a whole.
fn save_parts(desk: &mut Desk<'_, '_>, lookup: &Lookup, set: &PartSet) -> Result<(), InboxError> {
    let key = desk.txn.data_key_of(&schema::RAWS, &set.raw)?.ok_or(InboxError::NotFound)?;
    if let Some((_, message)) = set.message {
        note_raws(desk, message, set)?;
    }
    Ok(desk.txn.put_under(key, &schema::TEXT_PARTS, lookup, set)?)
}

fn note_raws(desk: &mut Desk<'_, '_>, message: MessageId, set: &PartSet) -> Result<(), StoreError> {
    set.more_raws.iter().try_for_each(|raw| desk.txn.put(&schema::MORE_RAWS, &(message, *raw), &()))
}

/// How many parts are missing of how many.
fn missing(set: &PartSet) -> Option<(u8, u8)> {
    let total = set.parts.first().map_or(0, |(part, _)| part.total);
    let missing = total.saturating_sub(set.parts.len() as u8);
    (missing > 0).then_some((missing, total))
}

/// Whether parts that come now belong to another text.
fn is_over(set: &PartSet, now: Timestamp) -> bool {
    let kept_for = if missing(set).is_some() { COMPLETE_WITHIN_MS } else { REPEAT_WITHIN_MS };
    now.ms_since(set.first_at) > kept_for
}

fn contradicts(set: &PartSet, part: TextPart, content: &TextContent) -> bool {
    set.parts.iter().any(|(known, said)| known.number == part.number && said != content)
}

/// Shows a text of which parts are missing, unless it has been shown.
fn show_incomplete(desk: &mut Desk<'_, '_>, set: &PartSet) -> Result<Option<(ConversationId, MessageId)>, InboxError> {
    if set.message.is_some() {
        return Ok(set.message);
    }
    let Some(record) = desk.txn.get(&schema::RAWS, &set.raw).readable()? else { return Ok(None) };
    let text = ParsedText { from: set.from.clone(), content: TextContent::Text(String::new()), sent: None, part: None };
    let message = enter(desk, set.raw, &record, &text, shown(set), Vec::new(), missing(set))?;
    note_raws(desk, message.id, set)?;
    Ok(Some((message.conversation, message.id)))
}

/// The text so far, with "[…]" where parts are missing.
fn shown(set: &PartSet) -> String {
    let total = set.parts.first().map_or(0, |(part, _)| part.total);
    let mut text = String::new();
    let mut run = Vec::new();
    for number in 1..=total {
        match set.parts.iter().find(|(part, _)| part.number == number) {
            Some((_, content)) => run.push(content),
            None => {
                text.push_str(&join(&run));
                run.clear();
                if !text.ends_with("[…]") {
                    text.push_str("[…]");
                }
            }
        }
    }
    text.push_str(&join(&run));
    text
}

fn enter(
    desk: &mut Desk<'_, '_>,
    raw: RawId,
    record: &RawRecord,
    text: &ParsedText,
    body: String,
    remarks: Vec<String>,
    missing: Option<(u8, u8)>,
) -> Result<Message, InboxError> {
    let contact = desk.contact_for(&text.from, None)?;
    let conversation = continued(desk, &contact, &record.line, record.received_at)?;
    let id = conversation.id;
    // What is left of a longer text may look like a keyword.
    let asked = keyword(&body).filter(|_| missing.is_none()).zip(text.from.phone());
    let asked = match asked {
        // Somebody who never sent STOP means something else by it.
        Some((Keyword::Start, number)) if !is_opted_out(desk, number)? => None,
        asked => asked,
    };
    let inbound = Inbound {
        channel: Channel::Sms,
        line: record.line.clone(),
        from: text.from.clone(),
        from_name: None,
        sent: text.sent,
        subject: None,
        text: body,
        html: None,
        attachments: Vec::new(),
        // A keyword is answered here; nobody waits for staff.
        automatic: asked.map(|_| Automatic::Reply),
        remarks,
        raw,
        detail: InboundDetail::Text { missing },
    };
    let message = Arrival { raw, record, category: Category::Uncategorised }.enter(desk, conversation, inbound)?;
    if let Some((keyword, number)) = asked {
        let conversation = desk.conversation(id)?;
        answer_keyword(desk, conversation, &record.line, keyword, number)?;
    }
    Ok(message)
}

pub(super) fn opt_out_lookup(desk: &Desk<'_, '_>, number: &PhoneNumber) -> Lookup {
    desk.lookup("opt out", number.as_e164().as_bytes())
}

pub(super) fn is_opted_out(desk: &mut Desk<'_, '_>, number: &PhoneNumber) -> Result<bool, InboxError> {
    let lookup = opt_out_lookup(desk, number);
    // Written only when somebody sent STOP, so that it counts even where it is damaged.
    Ok(desk.txn.read(&schema::OPT_OUTS, &lookup).exists()?)
}

fn answer_keyword(
    desk: &mut Desk<'_, '_>,
    mut conversation: Conversation,
    line: &LineId,
    keyword: Keyword,
    number: &PhoneNumber,
) -> Result<(), InboxError> {
    let lookup = opt_out_lookup(desk, number);
    let opted_out = is_opted_out(desk, number)?;
    let practice = desk.practice().name.clone();
    let (answer, event) = match (keyword, opted_out) {
        // One confirmation; asking again is not answered again.
        (Keyword::Stop, true) => (None, None),
        (Keyword::Stop, false) => {
            let at = desk.now();
            desk.txn.put(&schema::OPT_OUTS, &lookup, &OptOut { at })?;
            outbox::cancel_texts_to(desk, number, &mut conversation)?;
            desk.audit(Actor::Line(line.clone()), Action::OptedOut, [conversation.contact.0], Outcome::Done)?;
            let answer = format!("{practice}: you will get no more texts from us. Reply START to get them again.");
            (Some(answer), Some(Event::OptedOut))
        }
        (Keyword::Start, true) => {
            desk.txn.delete(&schema::OPT_OUTS, &lookup);
            desk.audit(Actor::Line(line.clone()), Action::OptedIn, [conversation.contact.0], Outcome::Done)?;
            let answer = format!("{practice}: you will get our texts again. Reply STOP to end them.");
            (Some(answer), Some(Event::OptedIn))
        }
        (Keyword::Start, false) => (None, None),
        (Keyword::Help, _) => {
            let answer = format!(
                "{practice}: texts about your care. Reply STOP to end them. In an emergency call your local emergency \
                 number."
            );
            (Some(answer), None)
        }
    };
    if let Some(event) = event {
        desk.note_event(&mut conversation, None, Category::Uncategorised, event)?;
    }
    let may_answer = answered_today(desk, conversation.id)? < MAX_ANSWERS_A_DAY;
    if let Some(text) = answer.filter(|_| may_answer) {
        outbox::queue_automatic_text(desk, &mut conversation, line, number, text)?;
    }
    Ok(desk.save_conversation(conversation)?)
}

/// How many keywords were answered in this conversation within a day.
fn answered_today(desk: &Desk<'_, '_>, id: ConversationId) -> Result<usize, InboxError> {
    let now = desk.now();
    let newest = desk.txn.list_each(&schema::MESSAGES, &id, Direction::Descending, None, 50)?;
    let automatic = |message: &Message| {
        now.ms_since(message.at) < DAY_MS && message.outbound().is_some_and(|outbound| outbound.author.is_none())
    };
    Ok(readable(newest).filter(automatic).count())
}

impl Inbox {
    /// Shows texts of which parts are missing for too long, marked incomplete; they complete later. Gives how many.
    /// Forgets those to which no part can come any more.
    pub async fn show_incomplete_texts(&self) -> Result<usize, InboxError> {
        let now = self.clock().now();
        let (mut count, mut after) = (0, None);
        loop {
            let page = self
                .shared
                .store
                .read::<_, StoreError>(move |r| {
                    r.list_each(&schema::TEXT_PARTS, &(), Direction::Ascending, after.as_ref(), PAGE)
                })
                .await?;
            let Some((last, _)) = page.last() else { return Ok(count) };
            after = Some(*last);
            for (lookup, set) in page {
                let set = match set {
                    Ok(set) => set,
                    Err(error) => {
                        tracing::error!(%error, "the parts of a text do not open");
                        continue;
                    }
                };
                let is_late = set.message.is_none() && now.ms_since(set.first_at) >= SHOW_PARTS_AFTER_MS;
                if is_late || (is_over(&set, now) && self.may_delete_by_age()) {
                    count += usize::from(self.look_after_parts(lookup).await?);
                }
            }
        }
    }

    /// Gives whether an incomplete text was shown.
    async fn look_after_parts(&self, lookup: Lookup) -> Result<bool, InboxError> {
        self.change(move |desk| {
            let Some(mut set) = desk.txn.read(&schema::TEXT_PARTS, &lookup).readable()? else { return Ok(false) };
            let now = desk.now();
            let is_late = set.message.is_none() && now.ms_since(set.first_at) >= SHOW_PARTS_AFTER_MS;
            if is_late {
                set.message = show_incomplete(desk, &set)?;
                save_parts(desk, &lookup, &set)?;
            }
            if is_over(&set, now) && desk.may_delete_by_age() {
                desk.txn.delete(&schema::TEXT_PARTS, &lookup);
                desk.audit(Actor::Daemon, Action::Filed, [set.raw.0], Outcome::Done)?;
            }
            Ok(is_late)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_is_a_keyword() {
        for text in ["STOP", " stop. ", "Stop!!", "Opt out", "OPT-OUT", "unsubscribe", "no más", "¡Alto!", "«cancelar»"]
        {
            assert_eq!(keyword(text), Some(Keyword::Stop), "{text}");
        }
        for text in ["should I stop the pills?", "stop it please", "", "...", "no", "end of month?"] {
            assert_eq!(keyword(text), None, "{text}");
        }
        assert_eq!(keyword("Start"), Some(Keyword::Start));
        assert_eq!(keyword("help?"), Some(Keyword::Help));
    }

    #[test]
    fn an_emoji_that_was_split_over_two_parts_is_whole_again() {
        let units: Vec<u16> = "hi 🙂!".encode_utf16().collect();
        let (first, second) = units.split_at(4);
        assert_eq!(join(&[&TextContent::Utf16(first.to_vec()), &TextContent::Utf16(second.to_vec())]), "hi 🙂!");
    }
}

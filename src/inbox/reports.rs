//! What the network and mail servers say about messages that left (requirements S15 and E14).

use super::{
    InboxError,
    desk::Desk,
    outbox::{advance, text_recipient},
};
use crate::{
    model::{
        address::PhoneNumber,
        audit::{Action, Actor, Outcome},
        ids::MessageId,
        line::{Channel, LineId},
        message::{Message, OutboundMessage},
        outbound::{Attempt, Outbound},
        parsed::{Bounce, ReportOutcome, StatusReport},
    },
    store::{
        Readable, Records,
        engine::Direction,
        schema::{self, EarlyReport, Lookup, OutboxRow},
    },
};

/// A report on a text that left longer ago belongs to another one: TP-MR wraps at 256 (requirements S15).
const REPORT_WINDOW_MS: i64 = 3 * 24 * 3600 * 1000;
/// Reports that are kept while one text is handed over; it has ten parts at most.
const MAX_EARLY: usize = 32;

fn report_lookup(desk: &Desk<'_, '_>, line: &LineId, reference: Option<u8>, to: &PhoneNumber) -> Lookup {
    let reference = reference.map_or("any".to_owned(), |reference| reference.to_string());
    desk.lookup("report", format!("{line}\n{reference}\n{}", to.as_e164()).as_bytes())
}

/// Remembers the references under which a text left, so that its reports find it.
pub(super) fn expect_reports(
    desk: &mut Desk<'_, '_>,
    line: &LineId,
    to: &PhoneNumber,
    references: &[u8],
    id: MessageId,
) -> Result<(), InboxError> {
    for (part, reference) in references.iter().enumerate() {
        let lookup = report_lookup(desk, line, Some(*reference), to);
        // The reference has wrapped: what an older text still waited for will not come.
        for ((lookup, older), _) in desk.txn.list(&schema::REPORTS_DUE, &lookup, Direction::Ascending, None, 1_000)? {
            desk.txn.delete(&schema::REPORTS_DUE, &(lookup, older));
        }
        desk.txn.put(&schema::REPORTS_DUE, &(lookup, id), &(part as u8))?;
    }
    Ok(())
}

/// The hand-over of a text was cut off, so its references are lost: a report to its recipient may be about it.
pub(super) fn expect_any_report(
    desk: &mut Desk<'_, '_>,
    line: &LineId,
    to: &PhoneNumber,
    id: MessageId,
) -> Result<(), InboxError> {
    let lookup = report_lookup(desk, line, None, to);
    Ok(desk.txn.put(&schema::REPORTS_DUE, &(lookup, id), &0)?)
}

/// No report on this message is waited for any more.
pub(super) fn forget(desk: &mut Desk<'_, '_>, id: MessageId, outbound: &OutboundMessage) {
    let Some(to) = text_recipient(outbound) else { return };
    let references = outbound.parts.iter().map(|part| Some(part.reference)).chain([None]);
    for reference in references {
        let lookup = report_lookup(desk, &outbound.line, reference, &to);
        desk.txn.delete(&schema::REPORTS_DUE, &(lookup, id));
    }
}

/// The text to this number that a line is just handing over.
fn in_hand(desk: &Desk<'_, '_>, line: &LineId, to: &PhoneNumber) -> Result<Option<(MessageId, OutboxRow)>, InboxError> {
    for (id, row) in desk.txn.list(&schema::OUTBOX, &(), Direction::Ascending, None, usize::MAX)? {
        if row.handing_over && row.channel == Channel::Sms && row.line == *line {
            let message: Option<Message> = desk.txn.get(&schema::MESSAGES, &(row.conversation, id)).readable()?;
            if message.as_ref().and_then(Message::outbound).and_then(text_recipient).as_ref() == Some(to) {
                return Ok(Some((id, row)));
            }
        }
    }
    Ok(None)
}

/// A status report finds its text by TP-MR and recipient; failing that, a text to this recipient whose hand-over was
/// cut off, since its references were lost.
pub(super) fn file_report(desk: &mut Desk<'_, '_>, line: &LineId, report: &StatusReport) -> Result<(), InboxError> {
    let actor = Actor::Line(line.clone());
    let Some(recipient) = &report.recipient else {
        return Ok(desk.audit(actor, Action::Reported, [], Outcome::Failed)?);
    };
    let report = EarlyReport { reference: report.reference, outcome: report.outcome, status: report.status };
    if let Some((id, mut row)) = in_hand(desk, line, recipient)? {
        // The first part of a long text is often reported before the last one left.
        if report.outcome != ReportOutcome::Pending && row.early.len() < MAX_EARLY {
            row.early.push(report);
            desk.txn.put(&schema::OUTBOX, &id, &row)?;
        }
        return Ok(desk.audit(actor, Action::Reported, [id.0], Outcome::Done)?);
    }
    take_report(desk, line, recipient, report)
}

/// The newest text that a report may be about.
fn reported(desk: &mut Desk<'_, '_>, lookup: &Lookup) -> Result<Option<(Message, u8)>, InboxError> {
    let newest = desk.txn.list(&schema::REPORTS_DUE, lookup, Direction::Descending, None, 1)?.into_iter().next();
    let Some(((_, id), part)) = newest else { return Ok(None) };
    let Some(message) = desk.readable_message(id)? else { return Ok(None) };
    Ok((desk.now().ms_since(message.at) <= REPORT_WINDOW_MS).then_some((message, part)))
}

/// Whether a text surely left as one part: in the letters that GSM 03.38 and ASCII share, or short in any script.
fn fits_one_part(text: &str) -> bool {
    let plain = |c: char| c == '\n' || ((' '..='z').contains(&c) && !matches!(c, '[' | '\\' | ']' | '^' | '`'));
    let units = text.encode_utf16().count();
    units <= 70 || (units <= 160 && text.chars().all(plain))
}

pub(super) fn take_report(
    desk: &mut Desk<'_, '_>,
    line: &LineId,
    recipient: &PhoneNumber,
    report: EarlyReport,
) -> Result<(), InboxError> {
    let now = desk.now();
    let actor = Actor::Line(line.clone());
    let exact = report_lookup(desk, line, Some(report.reference), recipient);
    let lost = report_lookup(desk, line, None, recipient);
    let (lookup, found) = match reported(desk, &exact)? {
        Some(found) => (exact, Some(found)),
        None => (lost, reported(desk, &lost)?),
    };
    let Some((mut message, part)) = found else {
        // A report on something that this program did not send.
        return Ok(desk.audit(actor, Action::Reported, [], Outcome::Failed)?);
    };
    let id = message.id;
    desk.audit(actor, Action::Reported, [id.0], Outcome::Done)?;
    if report.outcome == ReportOutcome::Pending {
        return Ok(());
    }
    let mut conversation = desk.conversation(message.conversation)?;
    let outbound = message.outbound_mut().ok_or(InboxError::NotFound)?;
    let delivered = report.outcome == ReportOutcome::Delivered;
    if let Some(part) = outbound.parts.get_mut(part as usize) {
        part.delivered = delivered;
    }
    // How many parts a text has whose hand-over was cut off is known only where it fits into one.
    let arrived = match outbound.parts.as_slice() {
        [] => fits_one_part(&outbound.text),
        parts => parts.iter().all(|part| part.delivered),
    };
    if lookup == exact || arrived || !delivered {
        desk.txn.delete(&schema::REPORTS_DUE, &(lookup, id));
    }
    let (next, words) = match (delivered, arrived) {
        (false, _) => (outbound.state.fail(now), format!("Not delivered (status {})", report.status)),
        (true, true) => (outbound.state.deliver(now), "Delivered".to_owned()),
        (true, false) => (Ok(outbound.state.clone()), "A part was delivered".to_owned()),
    };
    // It waits to be sent again, or its fate is settled: then the report only stays in the audit trail.
    let Ok(next) = next else { return Ok(()) };
    if matches!(outbound.state, Outbound::Queued { .. } | Outbound::HandingOver { .. }) {
        return Ok(());
    }
    advance(desk, &mut message, &mut conversation, next, Some(Attempt { at: now, outcome: words, by: None }))?;
    Ok(desk.save_conversation(conversation)?)
}

/// Takes what a delivery status notification says over to the message that it reports on.
pub(super) fn file_bounce(desk: &mut Desk<'_, '_>, mut message: Message, bounce: &Bounce) -> Result<(), InboxError> {
    let now = desk.now();
    let id = message.id;
    desk.audit(Actor::Daemon, Action::Reported, [id.0], Outcome::Done)?;
    let mut conversation = desk.conversation(message.conversation)?;
    let Some(outbound) = message.outbound_mut() else { return Ok(()) };
    let next = match (&outbound.state, bounce.action.as_str()) {
        // It is about an earlier try: this one has yet to end.
        (state @ (Outbound::Queued { .. } | Outbound::HandingOver { .. }), _) => Ok(state.clone()),
        (state, "failed") => state.fail(now),
        (state, "delivered") => state.deliver(now),
        (state, _) => Ok(state.clone()),
    };
    // A second report on a message whose fate is settled changes nothing.
    let Ok(next) = next else { return Ok(()) };
    let outcome = format!("The mail server reported: {} ({})", bounce.action, bounce.status);
    let attempt = Attempt { at: now, outcome, by: None };
    if next == outbound.state {
        outbound.attempts.push(attempt);
        desk.save_message(&message)?;
    } else {
        advance(desk, &mut message, &mut conversation, next, Some(attempt))?;
    }
    Ok(desk.save_conversation(conversation)?)
}

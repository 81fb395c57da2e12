//! The durable outbox (requirements X9): the intent is written before the first byte leaves, and a send that may have
//! happened is never repeated by itself.

use super::{Inbox, InboxError, desk::Desk, drafts, file, reports, texts};
use crate::{
    model::{
        address::{Address, PhoneNumber},
        audit::{Action, Actor, Outcome},
        category::Category,
        conversation::Conversation,
        ids::{ConversationId, MessageId},
        line::{Channel, LineId},
        message::{Entry, Event, Message, OutboundMessage, Recipient, SentPart},
        outbound::{Answer, Attempt, Due, Outbound, WrongState},
        outgoing::{HandOver, OutgoingMail, OutgoingText, Receipt},
        parsed::{Mailbox, ParsedFile},
        staff::Who,
        time::Timestamp,
    },
    store::{
        Readable, Reader, Records, StoreError,
        data_keys::DataKey,
        engine::Direction,
        schema::{self, OutboxRow, TextBudget},
        seal::random,
    },
};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// First and longest wait between tries; each is drawn from zero up to its bound (full jitter, requirements X8).
const RETRY_FIRST_MS: i64 = 10_000;
const RETRY_MAX_MS: i64 = 15 * MINUTE_MS;
/// So that a broken line does not spin.
const RETRY_LEAST_MS: i64 = 1_000;

/// What a line has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextDue {
    Now(MessageId),
    /// Nothing before this time.
    At(Timestamp),
    Nothing,
}

/// A message on its way to a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    Mail(Box<OutgoingMail>),
    Text(OutgoingText),
}

/// Moves a message to its next state and keeps everything that depends on it true.
pub(super) fn advance(
    desk: &mut Desk<'_, '_>,
    message: &mut Message,
    conversation: &mut Conversation,
    next: Outbound,
    attempt: Option<Attempt>,
) -> Result<(), InboxError> {
    let (id, category) = (message.id, message.category);
    let outbound = message.outbound_mut().ok_or(InboxError::NotFound)?;
    conversation.count_failed(category, outbound.state.needs_staff(), next.needs_staff());
    outbound.attempts.extend(attempt);
    outbound.state = next;
    match &outbound.state {
        Outbound::Queued { due } => {
            let earlier = desk.txn.read(&schema::OUTBOX, &id).readable()?;
            let row = earlier.unwrap_or_else(|| new_row(conversation.id, outbound, *due));
            let row = OutboxRow { due: *due, handing_over: false, early: Vec::new(), ..row };
            desk.txn.put(&schema::OUTBOX, &id, &row)?;
            desk.wake_jobs();
        }
        Outbound::HandingOver { .. } => {}
        _ => desk.txn.delete(&schema::OUTBOX, &id),
    }
    Ok(desk.save_message(message)?)
}

fn new_row(conversation: ConversationId, outbound: &OutboundMessage, due: Due) -> OutboxRow {
    OutboxRow {
        conversation,
        channel: outbound.channel,
        line: outbound.line.clone(),
        due,
        handing_over: false,
        attempts: 0,
        answers: Vec::new(),
        resolves: false,
        early: Vec::new(),
    }
}

/// Notes what taking a queued answer back has to restore.
pub(super) fn note_answers(
    desk: &mut Desk<'_, '_>,
    id: MessageId,
    answers: Vec<(Category, Timestamp)>,
    resolves: bool,
) -> Result<(), InboxError> {
    let row: OutboxRow = desk.txn.read(&schema::OUTBOX, &id)?.ok_or(InboxError::NotFound)?;
    Ok(desk.txn.put(&schema::OUTBOX, &id, &OutboxRow { answers, resolves, ..row })?)
}

/// Takes a queued answer back: whom it answered waits again, and what it closed is open again.
fn take_back(
    desk: &mut Desk<'_, '_>,
    message: &mut Message,
    conversation: &mut Conversation,
    attempt: Option<Attempt>,
) -> Result<(), InboxError> {
    let row = desk.txn.read(&schema::OUTBOX, &message.id).readable()?;
    let next = message.outbound().ok_or(InboxError::NotFound)?.state.cancel(desk.now())?;
    advance(desk, message, conversation, next, attempt)?;
    let Some(row) = row else { return Ok(()) };
    conversation.unanswered(&row.answers);
    if !conversation.is_open() && (row.resolves || !row.answers.is_empty()) {
        conversation.resolved_at = None;
        desk.note_event(conversation, None, message.category, Event::Reopened)?;
    }
    Ok(())
}

/// Queues a new outbound message under its data key and gives it to the conversation.
pub(super) fn queue(
    desk: &mut Desk<'_, '_>,
    conversation: &mut Conversation,
    category: Category,
    outbound: OutboundMessage,
    due: Due,
    key: DataKey,
) -> Result<MessageId, InboxError> {
    let id = desk.new_message_id();
    desk.txn.put(&schema::OUTBOX, &id, &new_row(conversation.id, &outbound, due))?;
    if let Some(message_id) = &outbound.message_id {
        file::remember_message_id(desk, message_id, id)?;
    }
    let entry = Entry::Outbound(Box::new(outbound));
    let message = Message { id, conversation: conversation.id, at: desk.now(), category, entry };
    desk.append(conversation, &message, Some(key))?;
    desk.wake_jobs();
    Ok(id)
}

/// Answers a keyword; goes out even to somebody who opted out (requirements S22).
pub(super) fn queue_automatic_text(
    desk: &mut Desk<'_, '_>,
    conversation: &mut Conversation,
    line: &LineId,
    to: &PhoneNumber,
    text: String,
) -> Result<(), InboxError> {
    let due = Due::at_once(desk.now());
    let outbound = OutboundMessage {
        channel: Channel::Sms,
        line: line.clone(),
        author: None,
        to: vec![Recipient { name: None, address: Address::Phone(to.clone()) }],
        cc: Vec::new(),
        subject: None,
        text,
        attachments: Vec::new(),
        state: Outbound::Queued { due },
        attempts: Vec::new(),
        message_id: None,
        in_reply_to: None,
        references: Vec::new(),
        parts: Vec::new(),
    };
    let key = desk.txn.new_data_key()?;
    let id = queue(desk, conversation, Category::Uncategorised, outbound, due, key)?;
    Ok(desk.audit(Actor::Daemon, Action::Queued, [id.0, conversation.id.0], Outcome::Done)?)
}

/// Cancels what is queued to a number that sent STOP. `open` is saved by the caller, other conversations here.
pub(super) fn cancel_texts_to(
    desk: &mut Desk<'_, '_>,
    number: &PhoneNumber,
    open: &mut Conversation,
) -> Result<(), InboxError> {
    let rows = desk.txn.list(&schema::OUTBOX, &(), Direction::Ascending, None, usize::MAX)?;
    for (id, row) in rows {
        if row.channel != Channel::Sms || row.handing_over {
            continue;
        }
        let Some(mut message) = desk.readable_message(id)? else { continue };
        let Some(outbound) = message.outbound() else { continue };
        if !outbound.to.iter().any(|to| to.address.phone() == Some(number)) {
            continue;
        }
        if !matches!(outbound.state, Outbound::Queued { .. }) {
            continue;
        }
        if row.conversation == open.id {
            take_back(desk, &mut message, open, Some(stopped(desk.now())))?;
        } else {
            let mut conversation = desk.conversation(row.conversation)?;
            take_back(desk, &mut message, &mut conversation, Some(stopped(desk.now())))?;
            desk.save_conversation(conversation)?;
        }
        desk.audit(Actor::Daemon, Action::Undone, [id.0], Outcome::Done)?;
    }
    Ok(())
}

fn stopped(at: Timestamp) -> Attempt {
    Attempt { at, outcome: "Not sent: this person asked for no more texts".into(), by: None }
}

pub(super) fn text_recipient(outbound: &OutboundMessage) -> Option<PhoneNumber> {
    outbound.to.first().and_then(|to| to.address.phone()).cloned()
}

impl Inbox {
    /// What this line has to send next, as far as its rate caps allow.
    pub async fn next_due(&self, line: &LineId) -> Result<NextDue, InboxError> {
        let now = self.clock().now();
        let caps = self.practice().lines.get(line).and_then(|line| line.text_caps);
        let rows = self.outbox().await?.into_iter();
        let next = rows
            .filter(|(_, row)| row.line == *line && !row.handing_over)
            .min_by_key(|(id, row)| (row.due.at(now), *id));
        let Some((id, row)) = next else { return Ok(NextDue::Nothing) };
        let free_at = match caps {
            Some(caps) => self.text_budget(line).await?.free_at(caps, now),
            None => now,
        };
        let at = row.due.at(now).max(free_at);
        Ok(if at <= now { NextDue::Now(id) } else { NextDue::At(at) })
    }

    /// All that waits to be sent. What its row does not tell any more may have been sent: staff are asked.
    async fn outbox(&self) -> Result<Vec<(MessageId, OutboxRow)>, InboxError> {
        let read = |r: &Reader<'_>| r.list_each(&schema::OUTBOX, &(), Direction::Ascending, None, usize::MAX);
        let mut rows = Vec::new();
        for (id, row) in self.shared.store.read::<_, StoreError>(read).await? {
            match row {
                Ok(row) => rows.push((id, row)),
                Err(error) if error.is_of_one_record() => self.settle(id, true).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rows)
    }

    async fn settle(&self, id: MessageId, doubtful: bool) {
        // One that cannot be must not hold up the others.
        if let Err(error) = self.change(move |desk| settle(desk, id, doubtful)).await {
            tracing::error!(message = %id, %error, "a message in the outbox could not be settled");
        }
    }

    /// What a line sent lately. One that is damaged begins anew.
    async fn text_budget(&self, line: &LineId) -> Result<TextBudget, StoreError> {
        let key = self.shared.store.lookup("budget", line.as_str().as_bytes());
        let read = move |r: &Reader<'_>| r.get(&schema::TEXT_BUDGETS, &key).readable();
        Ok(self.shared.store.read::<_, StoreError>(read).await?.unwrap_or_default())
    }

    /// Texts that this line may still send today; `None` where it has no cap.
    pub async fn texts_left_today(&self, line: &LineId) -> Result<Option<u32>, InboxError> {
        let Some((_, per_day)) = self.practice().lines.get(line).and_then(|line| line.text_caps) else {
            return Ok(None);
        };
        let budget = self.text_budget(line).await?;
        let sent_today = if budget.day == day_of(self.clock().now()) { budget.sent_today } else { 0 };
        Ok(Some(per_day.saturating_sub(sent_today)))
    }

    /// Writes the intent to hand a message over. `None` where it is not due any more (undone, cancelled).
    pub async fn begin_hand_over(&self, id: MessageId) -> Result<Option<Outgoing>, InboxError> {
        let begun = self.change(move |desk| begin(desk, id)).await?;
        let Some(message) = begun else { return Ok(None) };
        let Some(outbound) = message.outbound() else { return Ok(None) };
        match self.outgoing(id, outbound).await {
            Ok(outgoing) => Ok(Some(outgoing)),
            Err(error) => {
                // Nothing left, and staff are told instead of waiting for ever.
                tracing::error!(message = %id, %error, "a message could not be made ready for hand-over");
                let what = "its line is not set up any more, or one of its files cannot be read".to_owned();
                self.end_hand_over(id, HandOver::Refused { what }).await?;
                Ok(None)
            }
        }
    }

    async fn outgoing(&self, id: MessageId, outbound: &OutboundMessage) -> Result<Outgoing, InboxError> {
        match outbound.channel {
            Channel::Mail => Ok(Outgoing::Mail(Box::new(self.outgoing_mail(outbound).await?))),
            Channel::Sms | Channel::Voicemail => {
                let to = text_recipient(outbound).ok_or(InboxError::NotFound)?;
                // The low bits of the id are random: two long texts to one phone do not share a reference.
                let reference = id.0 as u16;
                let text = outbound.text.clone();
                Ok(Outgoing::Text(OutgoingText { line: outbound.line.clone(), to, text, reference }))
            }
        }
    }

    async fn outgoing_mail(&self, outbound: &OutboundMessage) -> Result<OutgoingMail, InboxError> {
        let line = self.practice().lines.get(&outbound.line).ok_or(InboxError::NotFound)?;
        let address = line.address.email().ok_or(InboxError::NotFound)?.clone();
        let mailbox = |recipient: &Recipient| {
            let address = recipient.address.email()?.clone();
            Some(Mailbox { name: recipient.name.clone(), address })
        };
        let mut attachments = Vec::new();
        for attachment in &outbound.attachments {
            attachments.push(ParsedFile {
                name: attachment.name.clone(),
                media_type: attachment.media_type.clone(),
                content_id: None,
                bytes: self.shared.store.content(attachment.content.clone()).await?,
            });
        }
        Ok(OutgoingMail {
            line: outbound.line.clone(),
            from: Mailbox { name: Some(self.practice().name.clone()), address },
            to: outbound.to.iter().filter_map(mailbox).collect(),
            cc: outbound.cc.iter().filter_map(mailbox).collect(),
            reply_to: None,
            subject: outbound.subject.clone().unwrap_or_default(),
            message_id: outbound.message_id.clone().ok_or(InboxError::NotFound)?,
            in_reply_to: outbound.in_reply_to.clone(),
            references: outbound.references.clone(),
            text: outbound.text.clone(),
            attachments,
            date: self.clock().now(),
            automatic: outbound.author.is_none(),
        })
    }

    /// Writes how a hand-over ended.
    pub async fn end_hand_over(&self, id: MessageId, ended: HandOver) -> Result<(), InboxError> {
        let jitter = u64::from_be_bytes(random());
        self.change(move |desk| end(desk, id, &ended, jitter)).await
    }

    /// A line's sender begins anew: a hand-over that it had begun and not ended may have happened.
    pub async fn recover_line(&self, line: &LineId) -> Result<(), InboxError> {
        let line = line.clone();
        self.recover(false, move |row| row.handing_over && row.line == line).await
    }

    /// After a start: every hand-over that has no end may have happened, or not. Where the journal has lost something,
    /// that may be what a send left behind, so nothing that waits leaves by itself.
    pub(super) async fn reconcile_outbox(&self, doubtful: bool) -> Result<(), InboxError> {
        let inbox = self.clone();
        self.recover(doubtful, move |row| {
            doubtful || row.handing_over || !inbox.practice().lines.contains_key(&row.line)
        })
        .await
    }

    async fn recover(
        &self,
        doubtful: bool,
        which: impl Fn(&OutboxRow) -> bool + Send + 'static,
    ) -> Result<(), InboxError> {
        for (id, _) in self.outbox().await?.into_iter().filter(|(_, row)| which(row)) {
            self.settle(id, doubtful).await;
        }
        Ok(())
    }

    /// Takes a send back before it leaves; its text goes back into the writer's draft.
    pub async fn undo(&self, who: &Who, id: MessageId) -> Result<(), InboxError> {
        let who = who.clone();
        let asking = who.clone();
        self.change_as(&asking, Action::Undone, id.0, move |desk| {
            let now = desk.now();
            let mut message = desk.visible_message(&who, id)?;
            let mut conversation = desk.conversation(message.conversation)?;
            let category = message.category;
            let outbound = message.outbound().ok_or(InboxError::NotFound)?;
            outbound.state.cancel(now)?;
            let key = (who.staff, conversation.id);
            let draft = desk.txn.read(&schema::DRAFTS, &key).readable()?;
            let mut draft = draft.unwrap_or_else(|| super::work::empty_draft(now));
            if draft.text.trim().is_empty() {
                draft.text.clone_from(&outbound.text);
                draft.subject.clone_from(&outbound.subject);
                draft.way = Some((outbound.channel, outbound.line.clone()));
                draft.cc = Some(outbound.cc.iter().filter_map(|r| r.address.email().cloned()).collect());
                drafts::came_back(desk, key, id, &draft)?;
            }
            take_back(desk, &mut message, &mut conversation, None)?;
            desk.note_event(&mut conversation, Some(&who), category, Event::SendUndone)?;
            desk.audit(&who, Action::Undone, [id.0], Outcome::Done)?;
            Ok(desk.save_conversation(conversation)?)
        })
        .await
    }

    /// What a person says about a send that failed or may have happened.
    pub async fn decide(&self, who: &Who, id: MessageId, answer: Answer) -> Result<(), InboxError> {
        let who = who.clone();
        let asking = who.clone();
        self.change_as(&asking, Action::Decided, id.0, move |desk| {
            let now = desk.now();
            let mut message = desk.visible_message(&who, id)?;
            let mut conversation = desk.conversation(message.conversation)?;
            let outbound = message.outbound_mut().ok_or(InboxError::NotFound)?;
            if !outbound.state.needs_staff() {
                return Err(WrongState { from: outbound.state.word(), to: "be decided about" }.into());
            }
            let (next, words) = match answer {
                Answer::ItArrived => (outbound.state.deliver(now)?, "Staff: it arrived"),
                Answer::SendAgain => {
                    if let Some(to) = text_recipient(outbound).filter(|_| outbound.author.is_some())
                        && texts::is_opted_out(desk, &to)?
                    {
                        return Err(opted_out());
                    }
                    (outbound.state.send_again(Due::at_once(now))?, "Staff: send again")
                }
                Answer::GiveUp => (outbound.state.give_up(now)?, "Staff: given up"),
            };
            let attempt = Attempt { at: now, outcome: words.to_owned(), by: Some(who.staff) };
            advance(desk, &mut message, &mut conversation, next, Some(attempt))?;
            desk.audit(&who, Action::Decided, [id.0], Outcome::Done)?;
            Ok(desk.save_conversation(conversation)?)
        })
        .await
    }
}

fn begin(desk: &mut Desk<'_, '_>, id: MessageId) -> Result<Option<Message>, InboxError> {
    let now = desk.now();
    let Some(mut row) = desk.txn.read(&schema::OUTBOX, &id).readable()? else { return Ok(None) };
    let Some(mut message) = desk.readable_message(id)? else {
        give_up(desk, id)?;
        return Ok(None);
    };
    let mut conversation = desk.conversation(message.conversation)?;
    let outbound = message.outbound_mut().ok_or(InboxError::NotFound)?;
    if row.handing_over || matches!(outbound.state, Outbound::Queued { due } if due.at(now) > now) {
        return Ok(None);
    }
    let Ok(next) = outbound.state.begin(now) else {
        // Its fate was settled elsewhere; left here it would be found due for ever.
        desk.txn.delete(&schema::OUTBOX, &id);
        desk.audit(Actor::Line(row.line), Action::HandOverEnded, [id.0], Outcome::Failed)?;
        return Ok(None);
    };
    // STOP may have come while an earlier try was under way.
    if let Some(to) = text_recipient(outbound).filter(|_| outbound.author.is_some())
        && texts::is_opted_out(desk, &to)?
    {
        take_back(desk, &mut message, &mut conversation, Some(stopped(now)))?;
        desk.audit(Actor::Daemon, Action::Undone, [id.0], Outcome::Done)?;
        desk.save_conversation(conversation)?;
        return Ok(None);
    }
    outbound.state = next;
    row.handing_over = true;
    row.attempts = row.attempts.saturating_add(1);
    if row.channel == Channel::Sms {
        count_texts(desk, &row.line, 1)?;
    }
    desk.txn.put(&schema::OUTBOX, &id, &row)?;
    desk.save_message(&message)?;
    desk.audit(Actor::Line(row.line), Action::HandOverBegun, [id.0], Outcome::Done)?;
    desk.save_conversation(conversation)?;
    Ok(Some(message))
}

/// Nobody can send what does not open: its conversation shows it as damaged, and it does not hold up the others.
fn give_up(desk: &mut Desk<'_, '_>, id: MessageId) -> Result<(), StoreError> {
    tracing::error!(message = %id, "a message that was to be sent is damaged and cannot be sent");
    desk.txn.delete(&schema::OUTBOX, &id);
    desk.audit(Actor::Daemon, Action::HandOverEnded, [id.0], Outcome::Failed)
}

fn end(desk: &mut Desk<'_, '_>, id: MessageId, ended: &HandOver, jitter: u64) -> Result<(), InboxError> {
    let now = desk.now();
    let mut message = desk.message(id)?;
    let mut conversation = desk.conversation(message.conversation)?;
    let outbound = message.outbound_mut().ok_or(InboxError::NotFound)?;
    let row = desk.txn.read(&schema::OUTBOX, &id).readable()?;
    let Some(row) = row.filter(|row| row.handing_over && matches!(outbound.state, Outbound::HandingOver { .. })) else {
        // The line was recovered meanwhile: it is unconfirmed already, or staff have decided.
        return Ok(());
    };
    let to = text_recipient(outbound);
    let (next, words) = match ended {
        HandOver::Accepted(Receipt::Mail { refused }) => {
            let is_refused = |to: &Recipient| {
                to.address.email().is_some_and(|email| refused.iter().any(|other| other.key() == email.key()))
            };
            match refused.len() {
                0 => (outbound.state.accept(now)?, "The mail server took it".to_owned()),
                n if outbound.to.iter().all(is_refused) => {
                    (outbound.state.fail(now)?, format!("The mail server refused {n} of its recipients, the first too"))
                }
                n => {
                    let words = format!("The mail server took it, but refused {n} of its recipients");
                    (outbound.state.accept(now)?, words)
                }
            }
        }
        HandOver::Accepted(Receipt::Text { references }) => {
            outbound.parts = references.iter().map(|r| SentPart { reference: *r, delivered: false }).collect();
            if let Some(to) = &to {
                reports::expect_reports(desk, &row.line, to, references, id)?;
            }
            count_texts(desk, &row.line, references.len().saturating_sub(1) as u32)?;
            (outbound.state.accept(now)?, "The network took it".to_owned())
        }
        HandOver::RetryLater { what, after_ms } => {
            let asked = after_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).clamp(RETRY_LEAST_MS, DAY_MS));
            let wait = asked.unwrap_or_else(|| retry_wait_ms(row.attempts, jitter));
            let words = format!("Not sent yet: {what}. It is tried again by itself");
            (outbound.state.postpone(Due::after_ms(now, wait))?, words)
        }
        HandOver::Refused { what } => (outbound.state.fail(now)?, format!("Not sent: {what}")),
        HandOver::Unknown { what } => {
            if let Some(to) = &to {
                reports::expect_any_report(desk, &row.line, to, id)?;
            }
            (outbound.state.lose_sight(now)?, format!("It may have been sent: {what}"))
        }
    };
    let outcome =
        if next.needs_staff() || matches!(next, Outbound::Queued { .. }) { Outcome::Failed } else { Outcome::Done };
    advance(desk, &mut message, &mut conversation, next, Some(Attempt { at: now, outcome: words, by: None }))?;
    desk.audit(Actor::Line(row.line.clone()), Action::HandOverEnded, [id.0], outcome)?;
    desk.save_conversation(conversation)?;
    take_early_reports(desk, &row, to.as_ref())
}

/// Takes the reports that came while a text was being handed over.
fn take_early_reports(desk: &mut Desk<'_, '_>, row: &OutboxRow, to: Option<&PhoneNumber>) -> Result<(), InboxError> {
    for report in &row.early {
        if let Some(to) = to {
            reports::take_report(desk, &row.line, to, *report)?;
        }
    }
    Ok(())
}

/// Ends what nobody will end any more: a hand-over that was cut off may have happened; what waits for a line that is
/// not set up any more will not. `doubtful` is everything after the journal has lost something, and a damaged row.
fn settle(desk: &mut Desk<'_, '_>, id: MessageId, doubtful: bool) -> Result<(), InboxError> {
    let now = desk.now();
    let row = match desk.txn.read(&schema::OUTBOX, &id) {
        Err(error) if error.is_of_one_record() => None,
        row => match row? {
            None => return Ok(()),
            row => row,
        },
    };
    let doubtful = doubtful || row.is_none();
    let goes_on = |row: &OutboxRow| !row.handing_over && desk.practice().lines.contains_key(&row.line);
    if !doubtful && row.as_ref().is_some_and(goes_on) {
        return Ok(());
    }
    let Some(mut message) = desk.readable_message(id)? else { return Ok(give_up(desk, id)?) };
    let mut conversation = desk.conversation(message.conversation)?;
    let outbound = message.outbound_mut().ok_or(InboxError::NotFound)?;
    let row = row.unwrap_or_else(|| new_row(conversation.id, outbound, Due::at_once(now)));
    let due_at = |state: &Outbound| if let Outbound::Queued { due } = state { due.at(now) } else { now };
    let to = text_recipient(outbound);
    let (next, words) = match &outbound.state {
        state @ Outbound::HandingOver { .. } => {
            (state.lose_sight(now), "It may have been sent: the program was interrupted while sending")
        }
        // Also one that could still be undone: it may have waited longer than is known.
        state if doubtful => (
            state.begin(due_at(state).max(now)).and_then(|begun| begun.lose_sight(now)),
            "It may have been sent: the store was damaged, and what it knew of this send may be lost",
        ),
        state => (state.fail(now), "Not sent: its line is not set up any more"),
    };
    desk.audit(Actor::Daemon, Action::HandOverEnded, [id.0], Outcome::Failed)?;
    let Ok(next) = next else {
        desk.txn.delete(&schema::OUTBOX, &id);
        return Ok(());
    };
    if let Some(to) = to.as_ref().filter(|_| matches!(next, Outbound::Unconfirmed { .. })) {
        reports::expect_any_report(desk, &row.line, to, id)?;
    }
    let attempt = Attempt { at: now, outcome: words.to_owned(), by: None };
    advance(desk, &mut message, &mut conversation, next, Some(attempt))?;
    desk.save_conversation(conversation)?;
    take_early_reports(desk, &row, to.as_ref())
}

pub(super) fn opted_out() -> InboxError {
    InboxError::Invalid("This person asked for no more texts (STOP). Call, or write an e-mail.".into())
}

fn day_of(now: Timestamp) -> i64 {
    now.millis().div_euclid(DAY_MS)
}

fn count_texts(desk: &mut Desk<'_, '_>, line: &LineId, texts: u32) -> Result<(), InboxError> {
    let now = desk.now();
    let key = desk.lookup("budget", line.as_str().as_bytes());
    let mut budget = desk.txn.read(&schema::TEXT_BUDGETS, &key).readable()?.unwrap_or_default();
    budget.count(texts, now);
    Ok(desk.txn.put(&schema::TEXT_BUDGETS, &key, &budget)?)
}

impl TextBudget {
    fn count(&mut self, texts: u32, now: Timestamp) {
        if self.day != day_of(now) {
            (self.day, self.sent_today) = (day_of(now), 0);
        }
        self.sent_today = self.sent_today.saturating_add(texts);
        self.last_minute.retain(|at| is_recent(*at, now));
        self.last_minute.extend((0..texts).map(|_| now));
    }

    /// When the next text may leave under caps per minute and day.
    fn free_at(&self, (per_minute, per_day): (u32, u32), now: Timestamp) -> Timestamp {
        if self.day == day_of(now) && self.sent_today >= per_day {
            return Timestamp::from_millis((day_of(now) + 1) * DAY_MS);
        }
        let recent: Vec<Timestamp> = self.last_minute.iter().copied().filter(|at| is_recent(*at, now)).collect();
        match recent.len().checked_sub(per_minute.max(1) as usize) {
            Some(place) => recent[place].plus_ms(MINUTE_MS),
            None => now,
        }
    }
}

/// Within the last minute. Times to come are those of a clock that was set back; they hold nothing up.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    (0..MINUTE_MS).contains(&now.ms_since(at))
}

fn retry_wait_ms(attempts: u16, jitter: u64) -> i64 {
    let bound = RETRY_FIRST_MS.saturating_mul(1 << attempts.min(10)).min(RETRY_MAX_MS);
    RETRY_LEAST_MS + (jitter % bound as u64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_hold_texts_back_until_they_may_leave() {
        let t = |seconds| Timestamp::from_seconds(86_400_i64 * 20_000 + seconds);
        let mut budget = TextBudget::default();
        for second in [0, 10, 20] {
            assert_eq!(budget.free_at((3, 5), t(second)), t(second));
            budget.count(1, t(second));
        }
        assert_eq!(budget.free_at((3, 5), t(30)), t(60));
        budget.count(2, t(70));
        assert_eq!(budget.free_at((9, 5), t(200)), t(86_400));
        assert_eq!(budget.free_at((9, 5), t(86_400)), t(86_400));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        for attempts in 0..40 {
            for jitter in [0, 1, u64::MAX / 2, u64::MAX] {
                let wait = retry_wait_ms(attempts, jitter);
                assert!((1_000..=RETRY_MAX_MS + 1_000).contains(&wait));
            }
        }
    }
}

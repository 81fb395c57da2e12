//! Tells whoever looks after the server what is broken: by mail through one of the practice's lines, and by text where
//! mail is what is broken.

use std::{sync::Arc, time::Duration};

use jiff::tz::TimeZone;

use super::supervisor::{Failure, Job, Reins, job as make};
use crate::{
    clock::Clock,
    config::{Config, CredentialError},
    gate::Gate,
    inbox::{AlertWays, AlertWords, Inbox},
    mail::{self, Secret, smtp::SmtpConfig},
    model::{
        address::{EmailAddress, PhoneNumber},
        alerts::{Delivery, Notice, Rules, Watch, Way},
        health::{Fault, Severity},
        line::LineId,
        outgoing::{HandOver, OutgoingMail, OutgoingText},
        parsed::Mailbox,
        time::Timestamp,
    },
    sms::modem::Texter,
    store::seal::random,
};

/// Between two looks at whether something is due, beside each new report.
const LOOK_EVERY: Duration = Duration::from_secs(2);

struct ByMail {
    line: LineId,
    from: EmailAddress,
    to: EmailAddress,
    server: SmtpConfig,
    password: Secret,
}

struct ByText {
    line: LineId,
    to: PhoneNumber,
    texter: Texter,
}

/// Where alerts go and how patient they are.
pub struct Alerts {
    mail: Option<ByMail>,
    text: Option<ByText>,
    rules: Rules,
    practice: String,
    /// The address of the Health page.
    page: String,
    zone: TimeZone,
}

impl Alerts {
    /// What the configuration says; `None` where nobody is to be told. `texters` are the modems that run.
    pub fn of(config: &Config, texters: &[(LineId, Texter)], page: String) -> Result<Option<Self>, CredentialError> {
        let section = &config.alerts;
        let to = section.mail.as_deref().and_then(|to| EmailAddress::parse(to).ok());
        let mail = match to.zip(config.alert_mail_line()) {
            Some((to, line)) => EmailAddress::parse(&line.address).ok().zip(Some((to, line))),
            None => None,
        };
        let mail = match mail {
            Some((from, (to, line))) => {
                let password = Secret::new(config.credential(&line.smtp.credential)?.to_string());
                Some(ByMail { line: line.id.clone(), from, to, server: line.smtp.clone(), password })
            }
            None => None,
        };
        let to = section.sms.as_deref().and_then(|to| PhoneNumber::parse(to, &config.practice.country).ok());
        let text = to.zip(config.alert_sms_line()).and_then(|(to, line)| {
            let (line, texter) = texters.iter().find(|(id, _)| *id == line.id)?.clone();
            Some(ByText { line, to, texter })
        });
        if mail.is_none() && text.is_none() {
            return Ok(None);
        }
        let repeat_ms = section.repeat_h.iter().map(|hours| i64::from(*hours) * 3_600_000).collect();
        let rules = Rules { after_ms: i64::from(section.after_s) * 1000, repeat_ms };
        // The configuration has checked the name.
        let zone = TimeZone::get(&config.practice.time_zone).unwrap_or(TimeZone::UTC);
        Ok(Some(Self { mail, text, rules, practice: config.practice.name.clone(), page, zone }))
    }

    /// By what alerts go out, in words.
    pub fn words(&self) -> Vec<&'static str> {
        let ways = [self.mail.as_ref().map(|_| "e-mail"), self.text.as_ref().map(|_| "SMS")];
        ways.into_iter().flatten().collect()
    }

    fn ways(&self) -> AlertWays {
        AlertWays { mail: self.mail.is_some(), text: self.text.is_some() }
    }

    async fn send(&self, now: Timestamp, way: Way, notice: &Notice) -> HandOver {
        let words = AlertWords { notice, practice: &self.practice, page: &self.page, zone: &self.zone };
        let unset = || HandOver::Refused { what: "this way is not set up any more".into() };
        match way {
            Way::Mail => {
                let Some(by) = &self.mail else { return unset() };
                let mail = OutgoingMail {
                    line: by.line.clone(),
                    from: Mailbox { name: Some(self.practice.clone()), address: by.from.clone() },
                    to: vec![Mailbox { name: None, address: by.to.clone() }],
                    cc: Vec::new(),
                    reply_to: None,
                    subject: words.subject(),
                    message_id: mail::smtp::message_id(random(), by.from.domain()),
                    in_reply_to: None,
                    references: Vec::new(),
                    text: words.text(),
                    attachments: Vec::new(),
                    date: now,
                    automatic: true,
                };
                mail::smtp::send(&by.server, &by.password, &mail).await
            }
            Way::Text => {
                let Some(by) = &self.text else { return unset() };
                let (line, to, reference) = (by.line.clone(), by.to.clone(), u16::from_be_bytes(random()));
                by.texter.send(OutgoingText { line, to, text: words.short(), reference }).await
            }
        }
    }
}

pub fn job(inbox: Inbox, alerts: Arc<Alerts>) -> Job {
    make(move |reins| {
        let (inbox, alerts) = (inbox.clone(), alerts.clone());
        async move { tell(&inbox, &alerts, &reins).await }
    })
}

async fn tell(inbox: &Inbox, alerts: &Alerts, reins: &Reins) -> Result<(), Failure> {
    let ways = alerts.ways();
    inbox.recover_alert(ways).await?;
    let mut reports = inbox.reports();
    while !reins.stop.is_cancelled() {
        let faults = reports.borrow_and_update().faults();
        if let Some(way) = inbox.next_alert(faults, alerts.rules.clone(), ways).await?
            && let Some(notice) = inbox.begin_alert(way).await?
        {
            // Once begun, a hand-over is waited for: cutting it off would leave it unconfirmed.
            let ended = reins.beat_beside(alerts.send(inbox.clock().now(), way, &notice)).await;
            inbox.end_alert(way, ended, ways).await?;
            continue;
        }
        reins.beat();
        tokio::select! {
            _ = reports.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = reins.stop.cancelled() => {}
        }
    }
    Ok(())
}

/// Tells that the store is sealed, and `why`. What was told is noted at the gate: a new start while it still is sealed
/// knows nothing of it and tells it again.
pub fn while_sealed(gate: Gate, clock: Clock, alerts: Arc<Alerts>, why: &str) -> Job {
    let fault = Fault {
        key: "sealed".into(),
        severity: Severity::Failing,
        what: format!("The records are sealed since Frontdesk started: {why}"),
        to_do:
            "Open the page below and type the passphrase or the recovery key, or run `frontdesk unseal` on the server. \
                Until then nobody can read or answer anything; nothing is lost."
                .into(),
        since: Some(clock.now()),
    };
    make(move |reins| {
        let (gate, clock, alerts, fault) = (gate.clone(), clock.clone(), alerts.clone(), fault.clone());
        async move { tell_sealed(&gate, &clock, &alerts, fault, &reins).await }
    })
}

async fn tell_sealed(gate: &Gate, clock: &Clock, alerts: &Alerts, fault: Fault, reins: &Reins) -> Result<(), Failure> {
    let faults = [fault];
    let (mut watch, mut delivery) = (Watch::default(), None::<Delivery>);
    while !reins.stop.is_cancelled() {
        if let Some(notice) = watch.step(clock.now(), &faults, &alerts.rules) {
            delivery = Some(Delivery::new(notice, alerts.mail.is_some()));
        }
        if let Some(delivery) = &mut delivery
            && let Some(way) = delivery.due(clock.now())
        {
            delivery.begin(way, clock.now())?;
            let sending = alerts.send(clock.now(), way, &delivery.notice);
            // Unsealing does not wait for a server that does not answer.
            let ended = reins.beat_beside(reins.stop.run_until_cancelled(sending)).await;
            let ended = ended.unwrap_or_else(|| HandOver::Unknown { what: "the store was unsealed meanwhile".into() });
            delivery.end(way, clock.now(), &ended, alerts.text.is_some())?;
            if let HandOver::RetryLater { what, .. } | HandOver::Refused { what } = &ended {
                tracing::warn!(reason = %what, "that the store is sealed could not be told yet");
            }
            if delivery.has_left() {
                gate.note_told(watch.clone());
            }
            continue;
        }
        reins.beat();
        let _ = reins.stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
    }
    Ok(())
}

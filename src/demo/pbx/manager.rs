//! The manager interface of the simulated PBX: the actions that voicemail needs, with Asterisk's own words.
//!
//! It offers no MD5 challenge, as if built without: the client's log-in within one machine must work so too, and the real
//! Asterisk in the tests offers it.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::broadcast::error::RecvError,
};

use super::{AMI_SECRET, AMI_USER, Lamp, MAX_MESSAGES, Shared, spool::FOLDERS};

pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        #[expect(clippy::disallowed_methods, reason = "a simulated peer is no part of the daemon")]
        tokio::spawn(async move {
            let mut up = shared.manager_up.subscribe();
            tokio::select! {
                // A connection that breaks is the client's to notice.
                _ = talk(stream, &shared) => {}
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}

/// Lines of `Key: value`.
type Fields = Vec<(String, String)>;

fn get<'a>(fields: &'a Fields, key: &str) -> &'a str {
    fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map_or("", |(_, value)| value)
}

async fn talk(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    // No honest client sends more than this in a day.
    let mut lines = BufReader::new(read.take(1 << 26)).lines();
    let mut lamps = shared.lamps.subscribe();
    write.write_all(b"Asterisk Call Manager/11.0.0\r\n").await?;
    let mut action = Fields::new();
    let mut logged_in = false;
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                None => return Ok(()),
                Some(line) if !line.is_empty() => {
                    if let Some((key, value)) = line.split_once(':') {
                        action.push((key.trim().to_owned(), value.trim().to_owned()));
                    }
                }
                Some(_) => {
                    let action = std::mem::take(&mut action);
                    let answer = answer(&action, shared, &mut logged_in).await?;
                    write.write_all(answer.as_bytes()).await?;
                    if get(&action, "Action").eq_ignore_ascii_case("Logoff") {
                        return Ok(());
                    }
                }
            },
            lamp = lamps.recv() => match lamp {
                Ok(lamp) if logged_in => write.write_all(event(&lamp).as_bytes()).await?,
                Err(RecvError::Closed) => return Ok(()),
                _ => {}
            },
        }
    }
}

fn event(lamp: &Lamp) -> String {
    format!(
        "Event: MessageWaiting\r\nPrivilege: call,all\r\nMailbox: {}@default\r\nWaiting: {}\r\nNew: {}\r\nOld: {}\r\n\r\n",
        lamp.mailbox,
        u8::from(lamp.unheard > 0),
        lamp.unheard,
        lamp.heard
    )
}

async fn answer(action: &Fields, shared: &Shared, logged_in: &mut bool) -> io::Result<String> {
    let id = get(action, "ActionID");
    let say =
        |response: &str, message: &str| format!("Response: {response}\r\nActionID: {id}\r\nMessage: {message}\r\n\r\n");
    let name = get(action, "Action").to_ascii_lowercase();
    if name == "login" {
        *logged_in = get(action, "Username") == AMI_USER && get(action, "Secret") == AMI_SECRET;
        let message =
            if *logged_in { ("Success", "Authentication accepted") } else { ("Error", "Authentication failed") };
        return Ok(say(message.0, message.1));
    }
    if name == "challenge" {
        return Ok(say("Error", "Must specify AuthType"));
    }
    if !*logged_in {
        return Ok(say("Error", "Permission denied"));
    }
    let mailbox = get(action, "Mailbox").split('@').next().unwrap_or_default();
    let known = shared.mailboxes.iter().any(|known| known == mailbox);
    Ok(match name.as_str() {
        "voicemailuserslist" => users(id, shared),
        "logoff" => say("Goodbye", "Thanks for all the fish."),
        "voicemailboxsummary" | "voicemailmove" | "voicemailremove" | "voicemailrefresh" if !known => {
            say("Success", "There is no voicemail user matching the given user.")
        }
        "voicemailboxsummary" => summary(id, mailbox, shared)?,
        "mailboxcount" => format!(
            "Response: Success\r\nActionID: {id}\r\nMessage: Mailbox Message Count\r\nMailbox: {mailbox}@default\r\n\
             UrgMessages: {}\r\nNewMessages: {}\r\nOldMessages: {}\r\n\r\n",
            shared.count(mailbox, "Urgent"),
            shared.count(mailbox, "INBOX"),
            shared.count(mailbox, "Old")
        ),
        "voicemailmove" => {
            let (from, to) = (get(action, "Folder"), get(action, "ToFolder"));
            let possible =
                FOLDERS.contains(&from) && FOLDERS.contains(&to) && !shared.moves_fail.load(Ordering::Relaxed);
            let moved = possible && shared.move_to(get(action, "ID"), Some(from), to).await?;
            say("Success", if moved { "Message move successful" } else { "Message move failed" }) + "\r\n"
        }
        "voicemailremove" => {
            let removed = shared.remove(get(action, "ID")).await?;
            say("Success", if removed { "Message remove successful" } else { "Message remove failed" }) + "\r\n"
        }
        "voicemailrefresh" => {
            shared.light(mailbox);
            say("Success", "Refresh sent")
        }
        "ping" => say("Success", "Pong"),
        _ => say("Error", "Invalid/unknown command. Use Action: ListCommands to show available commands."),
    })
}

fn users(id: &str, shared: &Shared) -> String {
    let mut text = format!(
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: Voicemail user list will follow\r\n\r\n"
    );
    for mailbox in &shared.mailboxes {
        let unheard = shared.count(mailbox, "INBOX") + shared.count(mailbox, "Urgent");
        text += &format!(
            "Event: VoicemailUserEntry\r\nActionID: {id}\r\nVMContext: default\r\nVoiceMailbox: {mailbox}\r\n\
             DeleteMessage: No\r\nMaxMessageCount: {MAX_MESSAGES}\r\nNewMessageCount: {unheard}\r\n\
             OldMessageCount: {}\r\n\r\n",
            shared.count(mailbox, "Old")
        );
    }
    text + &complete("VoicemailUserEntryComplete", id, shared.mailboxes.len())
}

fn summary(id: &str, mailbox: &str, shared: &Shared) -> io::Result<String> {
    let entries = shared.summary(mailbox)?;
    let mut text = format!(
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: Voicemail box detail will follow\r\n\r\n"
    );
    for entry in &entries {
        text += &format!(
            "Event: VoicemailBoxDetail\r\nActionID: {id}\r\nFolder: {}\r\nCallerID: {}\r\nDate: {}\r\nDuration: {}\r\n\
             Flag: {}\r\nID: {}\r\n\r\n",
            entry.folder,
            entry.get("callerid"),
            entry.get("origdate"),
            entry.get("duration"),
            entry.get("flag"),
            entry.get("msg_id"),
        );
    }
    Ok(text + &complete("VoicemailBoxDetailComplete", id, entries.len()))
}

fn complete(event: &str, id: &str, count: usize) -> String {
    format!("Event: {event}\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {count}\r\n\r\n")
}

//! An invented practice for the tests of the templates: every kind of entry and state once.

mod health;

use crate::model::{category::Category, line::Channel};

pub use self::health::report;
use super::*;

pub fn when(short: &str) -> When {
    When {
        short: short.to_owned(),
        full: format!("Friday 20 November 2026, {short}"),
        iso: "2026-11-20T09:41:07-08:00".to_owned(),
    }
}

pub fn person(name: &str, me: bool) -> Person {
    let initials = name.split(' ').filter_map(|word| word.chars().next()).collect();
    Person { id: format!("staff-{}", name.to_lowercase().replace(' ', "-")), name: name.to_owned(), initials, me }
}

fn staff() -> Vec<Person> {
    vec![
        person("Maria Ruiz", true),
        person("Ana Silva", false),
        person("Jonas Lind", false),
        person("Kim Nguyen", false),
    ]
}

pub fn me() -> Me {
    Me {
        id: "staff-maria-ruiz".to_owned(),
        name: "Maria Ruiz".to_owned(),
        initials: "MR".to_owned(),
        role: "Front desk".to_owned(),
    }
}

pub fn rail(current: Option<View>) -> Rail {
    let counts = [Some(18), Some(5), Some(9), Some(2), None];
    Rail {
        location: "Main Street Clinic".to_owned(),
        current,
        views: View::ALL.into_iter().zip(counts).map(|(view, count)| ViewCount { view, count }).collect(),
        lamps: vec![
            Lamp { channel: Channel::Mail, state: LampState::Ok { last: Some(when("09:58")) } },
            Lamp { channel: Channel::Sms, state: LampState::Down { since: when("09:12") } },
            Lamp { channel: Channel::Voicemail, state: LampState::Ok { last: Some(when("08:12")) } },
        ],
        is_well: false,
        at_health: false,
    }
}

pub fn banners() -> Vec<Banner> {
    vec![Banner::ChannelDown {
        channel: Channel::Sms,
        since: when("09:12"),
        trouble: "The modem does not answer on its serial port".to_owned(),
        waiting: 2,
    }]
}

struct Line<'a>(&'a str, Option<Channel>, Option<&'a str>, &'a str, &'a str, Option<&'a str>, &'a [Category]);

pub fn list(selected: Option<usize>) -> List {
    use Category::{Appointment, Billing, Clinical, Records, Refill, Uncategorised};
    use Channel::{Mail, Sms, Voicemail};
    let lines = [
        Line(
            "Eleanor Whitfield",
            Some(Sms),
            None,
            "Since the new tablets I feel dizzy and my lips are a bit swollen. Should I take tonight’s one?",
            "09:41",
            Some("17 min"),
            &[Clinical],
        ),
        Line("(415) 555-0177", Some(Voicemail), None, "0:48 voicemail", "09:32", Some("26 min"), &[Uncategorised]),
        Line(
            "Daniel García",
            Some(Mail),
            None,
            "Renovación de la receta — Buenos días, necesito renovar mi lisinopril antes del viernes",
            "09:20",
            Some("38 min"),
            &[Refill],
        ),
        Line(
            "Priya Natarajan",
            Some(Sms),
            Some("Ana"),
            "We have Tuesday 10:20 or Wednesday 15:00. Which suits you?",
            "08:55",
            None,
            &[Appointment],
        ),
        Line(
            "Walter Brandt",
            Some(Mail),
            None,
            "Statement of 3 November — I believe my insurance has already paid this",
            "08:31",
            Some("1 h 27 min"),
            &[Billing, Records],
        ),
        Line("Aiko Tanaka", Some(Voicemail), None, "0:21 voicemail", "08:12", Some("1 h 46 min"), &[Records]),
        Line(
            "Oluwaseun Adeyemi-Featherstonehaugh",
            None,
            Some("You"),
            "Called, no answer, try again after two",
            "08:02",
            Some("3 h"),
            &[Appointment],
        ),
        Line(
            "records@example.org",
            Some(Mail),
            None,
            "Request for records 88-1041 — Please find attached the signed release",
            "Thu",
            Some("19 h"),
            &[Records],
        ),
        Line("Luis Herrera", Some(Sms), None, "ok gracias", "Thu", None, &[Appointment]),
        Line(
            "Beatrice Okonkwo",
            Some(Mail),
            Some("Jonas"),
            "Re: Parking — There is a disabled bay behind the building",
            "Wed",
            None,
            &[Uncategorised],
        ),
        Line("Unknown", Some(Voicemail), None, "0:01 voicemail", "Wed", Some("2 d"), &[Uncategorised]),
        Line(
            "Hannah Cole",
            Some(Mail),
            None,
            "School form — Ken needs the form until Monday, is that possible?",
            "Tue",
            None,
            &[Records],
        ),
    ];
    let items = lines
        .into_iter()
        .enumerate()
        .map(|(i, Line(who, channel, author, preview, at, waiting, categories))| Item {
            id: format!("c{i}"),
            latest: format!("latest-{i}"),
            who: who.to_owned(),
            channel,
            author: author.map(str::to_owned),
            preview: preview.to_owned(),
            at: when(at),
            waiting: waiting.map(when),
            categories: categories.to_vec(),
            assignee: match i {
                0 => Some(person("Maria Ruiz", true)),
                4 | 7 => Some(person("Jonas Lind", false)),
                _ => None,
            },
            failed: u32::from(i == 3),
            resolved: i == 11,
            selected: selected == Some(i),
        })
        .collect();
    List {
        scope: Scope::View(View::NeedsAction),
        base: "/inbox/needs-action".to_owned(),
        order: Order::LongestWaiting,
        items,
        more: Some("opaque".to_owned()),
        last_seen: last_seen(),
    }
}

pub fn empty_list(view: View) -> List {
    List {
        scope: Scope::View(view),
        base: format!("/inbox/{}", view.slug()),
        order: Order::LongestWaiting,
        items: Vec::new(),
        more: None,
        last_seen: last_seen(),
    }
}

pub fn search(query: &str, found: usize) -> List {
    let mut list = list(None);
    list.items.truncate(found);
    List {
        scope: Scope::Search { query: query.to_owned() },
        base: "/search/0123".to_owned(),
        order: Order::Newest,
        more: None,
        ..list
    }
}

fn last_seen() -> Vec<LastSeen> {
    vec![
        LastSeen { channel: Channel::Mail, at: Some(when("09:58")) },
        LastSeen { channel: Channel::Sms, at: Some(when("09:41")) },
        LastSeen { channel: Channel::Voicemail, at: Some(when("08:12")) },
    ]
}

fn waves() -> Vec<u8> {
    // Two sentences with a pause between them.
    (0..96u32).map(|i| if (40..52).contains(&i) { 3 } else { (i * i * 37 % 71 + 12) as u8 }).collect()
}

fn file(name: &str, size: &str, picture: bool) -> File {
    File { id: name.replace('.', "-"), name: name.to_owned(), size: size.to_owned(), picture, audio: None }
}

fn inbound(id: &str, channel: Channel, at: &str, text: &str, kind: InboundKind) -> Inbound {
    Inbound {
        id: id.to_owned(),
        channel,
        at: when(at),
        claims_sent: None,
        from: "Eleanor Whitfield".to_owned(),
        address: if channel == Channel::Mail { "eleanor@example.org" } else { "(415) 555-0142" }.to_owned(),
        line: if channel == Channel::Mail { "desk@example.org" } else { "(415) 555-0100" }.to_owned(),
        subject: None,
        text: text.to_owned(),
        html: false,
        files: Vec::new(),
        automated: None,
        remarks: Vec::new(),
        category: Category::Clinical,
        kind,
    }
}

fn mail() -> InboundKind {
    InboundKind::Mail { to: Vec::new(), cc: Vec::new() }
}

pub fn outbound(id: &str, state: SendState) -> Outbound {
    Outbound {
        id: id.to_owned(),
        channel: Channel::Sms,
        at: when("10:02"),
        author: Some("Ana Silva".to_owned()),
        line: "(415) 555-0100".to_owned(),
        to: vec!["(415) 555-0142".to_owned()],
        cc: Vec::new(),
        subject: None,
        text: "Nurse Kim will call you within ten minutes.".to_owned(),
        files: Vec::new(),
        state,
        attempts: Vec::new(),
    }
}

fn attempts() -> Vec<Attempt> {
    vec![
        Attempt { at: when("10:02"), outcome: "The modem was busy".to_owned(), by: None },
        Attempt { at: when("10:03"), outcome: "No answer after the text was handed over".to_owned(), by: None },
    ]
}

fn event(id: &str, by: Option<&str>, kind: EventKind) -> Entry {
    Entry::Event(Event { id: id.to_owned(), at: when("09:44"), by: by.map(str::to_owned), kind })
}

/// A day at the practice: what the screenshots show first.
pub fn entries() -> Vec<Entry> {
    vec![
        Entry::Day(Day { iso: "2026-11-19".to_owned(), words: "Thursday 19 November".to_owned() }),
        Entry::Inbound(Box::new(Inbound {
            subject: Some("Blood pressure tablets".to_owned()),
            html: true,
            files: vec![file("tablets.jpg", "412 kB", true), file("pharmacy-leaflet.pdf", "96 kB", false)],
            ..inbound(
                "m1",
                Channel::Mail,
                "14:02",
                "Good afternoon,\n\nCould you tell Dr. Okafor that the pharmacy changed my blood pressure tablets? They look different now.\n\nThank you,\nEleanor\n\nOn Mon, 16 Nov 2026 at 11:20, Main Street Clinic <desk@example.org> wrote:\n> Your refill is ready at the pharmacy.\n> Have a good week.",
                mail(),
            )
        })),
        Entry::Outbound(Box::new(Outbound {
            channel: Channel::Mail,
            at: when("14:20"),
            line: "desk@example.org".to_owned(),
            to: vec!["eleanor@example.org".to_owned()],
            subject: Some("Re: Blood pressure tablets".to_owned()),
            text: "Thank you, Mrs. Whitfield. I have passed it on to Dr. Okafor.".to_owned(),
            ..outbound("m2", SendState::Delivered { at: when("14:20") })
        })),
        Entry::Note(Note {
            id: "m3".to_owned(),
            at: when("14:22"),
            author: "Ana Silva".to_owned(),
            text: "Pharmacy confirmed: amlodipine 5 mg by another maker.".to_owned(),
        }),
        Entry::Day(Day { iso: "2026-11-20".to_owned(), words: "Today".to_owned() }),
        Entry::Restricted(Restricted { id: "m4".to_owned(), at: when("08:50") }),
        Entry::Gone(Gone {
            id: "destroyed".to_owned(),
            at: when("08:52"),
            destroyed: Some(Destroyed { at: when("08:58"), certificate: "06c2f1o4k0000g0000004h2ss0".to_owned() }),
        }),
        Entry::Gone(Gone { id: "damaged".to_owned(), at: when("08:53"), destroyed: None }),
        Entry::Inbound(Box::new(inbound(
            "m5",
            Channel::Voicemail,
            "09:36",
            "",
            InboundKind::Voicemail {
                urgent: false,
                audio: Some(Audio {
                    src: "/messages/m5/audio".to_owned(),
                    duration: "0:31".to_owned(),
                    peaks: waves(),
                }),
                heard_by_phone: false,
            },
        ))),
        Entry::Inbound(Box::new(inbound(
            "m6",
            Channel::Sms,
            "09:41",
            "Since the new tablets I feel dizzy and my lips are a bit swollen. Should I take tonight’s one?",
            InboundKind::Text { missing: None },
        ))),
        event("m7", Some("Ana Silva"), EventKind::Assigned { to: Some("Maria Ruiz".to_owned()) }),
    ]
}

/// Every state and oddity that a timeline may show.
pub fn odd_entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::Inbound(Box::new(inbound("q1", Channel::Mail, "07:10", "", InboundKind::Quarantined))),
        Entry::Inbound(Box::new(inbound(
            "q2",
            Channel::Sms,
            "07:12",
            "The first part of a long text that",
            InboundKind::Text { missing: Some((1, 3)) },
        ))),
        Entry::Inbound(Box::new(inbound(
            "q3",
            Channel::Voicemail,
            "07:15",
            "",
            InboundKind::Voicemail { urgent: true, audio: None, heard_by_phone: true },
        ))),
        Entry::Inbound(Box::new(Inbound {
            subject: None,
            automated: Some(Automated::Reply),
            category: Category::Uncategorised,
            claims_sent: Some(when("Tue 23:10")),
            remarks: vec!["The character set was unknown; shown as well as possible".to_owned()],
            files: vec![File {
                audio: Some(Audio { src: "/attachments/memo".to_owned(), duration: String::new(), peaks: Vec::new() }),
                ..file("msg0001.wav", "88 kB", false)
            }],
            ..inbound(
                "q4",
                Channel::Mail,
                "07:20",
                "I am out of the office until Monday.",
                InboundKind::Mail {
                    to: vec!["billing@example.org".to_owned()],
                    cc: vec!["harold@example.org".to_owned()],
                },
            )
        })),
    ];
    let states = [
        SendState::Queued { next_try: when("10:05") },
        SendState::HandingOver,
        SendState::Sent { at: when("10:02") },
        SendState::Cancelled,
        SendState::Unconfirmed { since: when("10:03") },
        SendState::Failed { at: when("10:03") },
        SendState::Undoable { seconds_left: 8 },
    ];
    entries.extend(states.into_iter().enumerate().map(|(i, state)| {
        let with_attempts = matches!(state, SendState::Unconfirmed { .. } | SendState::Failed { .. });
        Entry::Outbound(Box::new(Outbound {
            attempts: if with_attempts { attempts() } else { Vec::new() },
            ..outbound(&format!("s{i}"), state)
        }))
    }));
    entries.extend([
        event("e1", None, EventKind::Assigned { to: None }),
        event("e2", Some("Ana Silva"), EventKind::Resolved),
        event("e3", None, EventKind::Reopened),
        event("e4", Some("Ana Silva"), EventKind::Categorised { from: Category::Uncategorised, to: Category::Refill }),
        event("e5", None, EventKind::OptedOut),
        event("e6", None, EventKind::OptedIn),
        event("e7", Some("Maria Ruiz"), EventKind::SendUndone),
    ]);
    entries
}

pub fn composer() -> Composer {
    Composer {
        cursor: "m7".to_owned(),
        ways: vec![
            Way {
                key: "sms-1".to_owned(),
                channel: Channel::Sms,
                lines: vec![LineChoice {
                    id: "front-sms".to_owned(),
                    label: "(415) 555-0100 · Main Street".to_owned(),
                    chosen: true,
                }],
                to: vec![Recipient {
                    name: Some("Eleanor Whitfield".to_owned()),
                    address: "(415) 555-0142".to_owned(),
                }],
                cc: Vec::new(),
                differs_from_sender: false,
                chosen: true,
            },
            Way {
                key: "mail-1".to_owned(),
                channel: Channel::Mail,
                lines: vec![
                    LineChoice { id: "desk".to_owned(), label: "desk@example.org".to_owned(), chosen: true },
                    LineChoice { id: "billing".to_owned(), label: "billing@example.org".to_owned(), chosen: false },
                ],
                to: vec![Recipient {
                    name: Some("Eleanor Whitfield".to_owned()),
                    address: "eleanor@example.org".to_owned(),
                }],
                cc: vec![CcChoice {
                    name: Some("Harold Whitfield".to_owned()),
                    address: "harold@example.org".to_owned(),
                    chosen: true,
                }],
                differs_from_sender: true,
                chosen: false,
            },
        ],
        no_way: None,
        noting: false,
        subject: "Re: Blood pressure tablets".to_owned(),
        text: "Mrs. Whitfield, please do not take another tablet. If breathing gets hard or swelling grows, call 911 now. Nurse Kim is calling you in the next few minutes.".to_owned(),
        note: String::new(),
        saved: Some(when("09:57")),
        max_file_bytes: 20_000_000,
        conflict: None,
        problem: None,
    }
}

pub fn conversation(entries: Vec<Entry>) -> Conversation {
    Conversation {
        id: "c0".to_owned(),
        base: "/inbox/needs-action".to_owned(),
        title: "Eleanor Whitfield".to_owned(),
        addresses: vec!["(415) 555-0142".to_owned(), "eleanor@example.org".to_owned()],
        assignee: Some(person("Maria Ruiz", true)),
        resolved: None,
        staff: staff(),
        earlier: true,
        entries,
        cursor: "m7".to_owned(),
        composer: composer(),
        panel: Panel {
            name: "Eleanor Whitfield".to_owned(),
            initials: "EW".to_owned(),
            addresses: vec![
                Contacted { channel: Some(Channel::Sms), address: "(415) 555-0142".to_owned(), opted_out: false },
                Contacted { channel: Some(Channel::Mail), address: "eleanor@example.org".to_owned(), opted_out: false },
                Contacted { channel: None, address: "22000".to_owned(), opted_out: true },
            ],
            since: when("12 June 2025"),
            others: vec![
                OtherConversation {
                    id: "c90".to_owned(),
                    at: when("3 Nov"),
                    channel: Some(Channel::Mail),
                    preview: "Flu shot — When may I come by?".to_owned(),
                    resolved: true,
                },
                OtherConversation {
                    id: "c91".to_owned(),
                    at: when("14 Oct"),
                    channel: None,
                    preview: "Prefers calls after four".to_owned(),
                    resolved: false,
                },
            ],
            seen_by: vec!["Triage nurse".to_owned(), "Practice manager".to_owned()],
        },
    }
}

pub fn conflict() -> Conflict {
    Conflict {
        news: vec![News {
            who: "Ana Silva".to_owned(),
            ours: true,
            at: when("12 s ago"),
            channel: Channel::Sms,
            excerpt: "Please stop the tablets, Nurse Kim is calling you right now.".to_owned(),
        }],
    }
}

pub fn toast(done: Done) -> Toast {
    Toast { conversation: "c0".to_owned(), back: "/inbox/needs-action".to_owned(), done }
}

/// The inbox with this list and pane.
pub fn inbox(list: List, pane: Pane) -> InboxPage {
    let current = if let Scope::View(view) = &list.scope { Some(*view) } else { None };
    InboxPage { me: me(), seq: "41".to_owned(), rail: rail(current), banners: banners(), list, pane, toast: None }
}

/// Every page once, by a name.
pub fn pages() -> Vec<(&'static str, String)> {
    use askama::Template as _;
    let main = || inbox(list(Some(0)), Pane::Conversation(Box::new(conversation(entries()))));
    let with = |change: fn(&mut Conversation)| {
        let mut conversation = conversation(entries());
        change(&mut conversation);
        inbox(list(Some(0)), Pane::Conversation(Box::new(conversation)))
    };
    let door = "Main Street Clinic";
    let login = |problem, notice| LoginPage {
        practice: door.to_owned(),
        login: "maria".to_owned(),
        next: "/inbox/mine".to_owned(),
        problem,
        notice,
    };
    let welcome = |problem| WelcomePage {
        practice: door.to_owned(),
        state: WelcomeState::Open {
            action: "/welcome/token".to_owned(),
            name: "Maria Ruiz".to_owned(),
            login: "maria".to_owned(),
            min_chars: 15,
            problem,
        },
    };
    let start = |starting| StartPage { practice: door.to_owned(), next: "/inbox/mine".to_owned(), starting };
    let sealed = |problem| start(Starting::Sealed { problem: Some(problem), takes_texts: false });
    let error = |kind| ErrorPage { kind, back: "/inbox/needs-action".to_owned() };
    let rendered = vec![
        (
            "inbox",
            InboxPage {
                banners: Vec::new(),
                toast: Some(toast(Done::Assigned { to: Some(person("Kim Nguyen", false)), was: String::new() })),
                ..main()
            }
            .render(),
        ),
        ("banner", main().render()),
        ("list", InboxPage { banners: Vec::new(), ..inbox(list(None), Pane::Nothing) }.render()),
        (
            "odd",
            with(|c| {
                c.entries = odd_entries();
                c.assignee = None;
            })
            .render(),
        ),
        ("conflict", with(|c| c.composer.conflict = Some(conflict())).render()),
        (
            "mail",
            with(|c| {
                c.composer.ways[0].chosen = false;
                c.composer.ways[1].chosen = true;
                c.composer.problem = Some(Problem::TooManyFiles { limit: 10 });
            })
            .render(),
        ),
        (
            "note",
            with(|c| {
                c.composer.noting = true;
                c.composer.note = "Allergy noted in the chart.".to_owned();
                c.assignee = Some(person("Ana Silva", false));
            })
            .render(),
        ),
        (
            "withheld",
            with(|c| {
                c.composer.ways.clear();
                c.composer.no_way = Some(NoWay::NoAddress);
                c.resolved = Some(when("10:02"));
                c.title = "Unknown".to_owned();
                c.addresses.clear();
                c.panel.others.clear();
            })
            .render(),
        ),
        ("clear", InboxPage { banners: Vec::new(), ..inbox(empty_list(View::NeedsAction), Pane::Nothing) }.render()),
        ("empty-mine", inbox(empty_list(View::Mine), Pane::Nothing).render()),
        ("empty-unassigned", inbox(empty_list(View::Unassigned), Pane::Nothing).render()),
        ("empty-failed", inbox(empty_list(View::FailedSends), Pane::Nothing).render()),
        ("empty-resolved", inbox(empty_list(View::Resolved), Pane::Nothing).render()),
        ("found", inbox(search("(415) 555-0142", 2), Pane::Nothing).render()),
        ("not-found", inbox(search("Eleanore", 0), Pane::Nothing).render()),
        (
            "restricted",
            inbox(list(None), Pane::Restricted { categories: vec![Category::Clinical, Category::Refill] }).render(),
        ),
        ("part-list", ListPart { me: me(), rail: rail(None), banners: banners(), list: list(None) }.render()),
        (
            "part-conversation",
            ConversationPart {
                pane: Pane::Conversation(Box::new(conversation(entries()))),
                toast: Some(toast(Done::Noted)),
            }
            .render(),
        ),
        ("login", login(None, None).render()),
        ("login-wrong", login(Some(LoginProblem::Wrong), None).render()),
        ("login-locked", login(Some(LoginProblem::Locked { until: when("10:15") }), None).render()),
        ("login-out", login(None, Some(LoginNotice::LoggedOut)).render()),
        ("login-expired", login(None, Some(LoginNotice::Expired)).render()),
        ("login-set", login(None, Some(LoginNotice::PasswordSet)).render()),
        ("welcome", welcome(None).render()),
        ("welcome-short", welcome(Some(PasswordProblem::TooShort)).render()),
        ("welcome-differ", welcome(Some(PasswordProblem::Differ)).render()),
        ("welcome-guessable", welcome(Some(PasswordProblem::Guessable)).render()),
        ("welcome-spent", WelcomePage { practice: door.to_owned(), state: WelcomeState::Spent }.render()),
        (
            "ca",
            CaPage {
                practice: door.to_owned(),
                address: "https://frontdesk.example.org:8443".to_owned(),
                fingerprint: ["4F:9A:11:C0"; 8].join(":"),
            }
            .render(),
        ),
        ("starting", start(Starting::Opening).render()),
        (
            "rebuilding",
            start(Starting::Rebuilding { percent: 42, done: "420,000".to_owned(), of: "1,000,000".to_owned() })
                .render(),
        ),
        ("taking-in", start(Starting::TakingIn).render()),
        ("sealed", start(Starting::Sealed { problem: None, takes_texts: true }).render()),
        ("sealed-wrong", sealed(UnsealProblem::Wrong).render()),
        ("sealed-mistyped", sealed(UnsealProblem::Mistyped { what: "group 3 is mistyped".to_owned() }).render()),
        ("sealed-too-many", sealed(UnsealProblem::TooMany { wait: "2 minutes".to_owned() }).render()),
        ("sealed-failed", sealed(UnsealProblem::Failed).render()),
        ("400", error(ErrorKind::BadRequest).render()),
        ("403", error(ErrorKind::Forbidden).render()),
        ("404", error(ErrorKind::NotFound).render()),
        ("409", error(ErrorKind::Conflict).render()),
        ("413", error(ErrorKind::TooLarge).render()),
        ("429", error(ErrorKind::TooMany).render()),
        ("500", error(ErrorKind::Failed { reference: "k3v9-2m".to_owned() }).render()),
        ("503", error(ErrorKind::Unavailable).render()),
        ("507", error(ErrorKind::DiskFull).render()),
    ];
    rendered
        .into_iter()
        .chain(health::pages())
        .map(|(name, page)| (name, page.expect("a template writes to a string")))
        .collect()
}

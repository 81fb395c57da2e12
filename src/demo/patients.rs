//! Invented patients who write and call. The same seed gives the same patients and the same story.

use crate::model::time::Timestamp;

/// Somebody invented. Numbers are of the range reserved for fiction, addresses of RFC 2606.
pub struct Patient {
    pub name: &'static str,
    pub phone: &'static str,
    pub email: &'static str,
}

pub const PATIENTS: [Patient; 12] = [
    Patient { name: "Eleanor Whitfield", phone: "+14155550142", email: "eleanor.whitfield@example.org" },
    Patient { name: "Daniel García", phone: "+14155550117", email: "daniel.garcia@example.org" },
    Patient { name: "Priya Natarajan", phone: "+14155550128", email: "priya.n@example.net" },
    Patient { name: "Walter Brandt", phone: "+14155550163", email: "w.brandt@example.com" },
    Patient { name: "Aiko Tanaka", phone: "+14155550171", email: "aiko.tanaka@example.org" },
    Patient { name: "Rosa Jiménez", phone: "+14155550109", email: "rosa.jimenez@example.net" },
    Patient { name: "Samuel Osei", phone: "+14155550155", email: "samuel.osei@example.com" },
    Patient { name: "Grace Lindqvist", phone: "+14155550184", email: "grace.l@example.org" },
    Patient { name: "Tom Abernathy", phone: "+14155550177", email: "tom.abernathy@example.net" },
    Patient { name: "Lucía Fernández", phone: "+14155550133", email: "lucia.fernandez@example.com" },
    Patient { name: "Henry Okonkwo", phone: "+14155550196", email: "henry.okonkwo@example.org" },
    Patient { name: "Marta Kowalska", phone: "+14155550121", email: "marta.kowalska@example.net" },
];

/// Something that a patient does.
pub enum Act {
    Text { text: &'static str },
    Mail { subject: &'static str, text: &'static str, file: Option<File> },
    Call { seconds: f32, urgent: bool },
}

#[derive(Clone, Copy)]
pub enum File {
    Picture,
    Letter,
}

/// A small story: what one patient does, one thing after another.
type Story = &'static [Act];

const STORIES: [Story; 16] = [
    &[Act::Text { text: "Hi, can I move my appointment on Thursday to the afternoon?" }],
    &[
        Act::Call { seconds: 9.0, urgent: true },
        Act::Text {
            text: "I just called. Since the new tablets I feel dizzy and my lips are a bit swollen. Should I take \
                   tonight's one?",
        },
    ],
    &[Act::Mail {
        subject: "Renovación de la receta",
        text: "Buenos días:\n\nNecesito renovar mi lisinopril de 20 mg. Me quedan tres pastillas. ¿Pueden enviarlo a \
               la farmacia de la calle Mayor?\n\nMuchas gracias",
        file: None,
    }],
    &[Act::Mail {
        subject: "Statement of 3 November",
        text: "Hello,\n\nI believe my insurance has already paid this bill. The letter from them is attached. Could \
               you check, please?\n\nKind regards",
        file: Some(File::Letter),
    }],
    &[Act::Call { seconds: 6.0, urgent: false }],
    &[Act::Text { text: "¿Tienen cita para mi hija mañana por la mañana? Tiene fiebre desde ayer 🤒" }],
    &[Act::Mail {
        subject: "Picture of the rash",
        text: "As we discussed on the phone, here is the picture of my arm from this morning. It itches more at night.",
        file: Some(File::Picture),
    }],
    &[Act::Text { text: "Refill please: metformin 500, same pharmacy. Thank you!" }],
    &[
        Act::Text { text: "Did my blood test results come back yet?" },
        Act::Mail {
            subject: "Blood test results",
            text: "I sent you a text as well. If it is easier, you can mail me the results of my blood test.",
            file: None,
        },
    ],
    &[Act::Call { seconds: 4.0, urgent: false }],
    &[Act::Mail {
        subject: "School form for Ken",
        text: "Dear team,\n\nKen's school needs the form about his asthma by Friday. Can I pick it up on Wednesday?",
        file: None,
    }],
    &[Act::Text {
        text: "My mother has had chest pain since this morning and it goes into her left arm. She is 71. What should \
               we do? She does not want to go to the hospital, but I am worried, please call me back quickly on this \
               number.",
    }],
    &[Act::Text { text: "Thank you for yesterday, the new inhaler helps a lot 🙂" }],
    &[Act::Mail {
        subject: "New insurance",
        text: "Good morning,\n\nI have a new insurance card since 1 November. Which side do you need?",
        file: Some(File::Picture),
    }],
    &[Act::Call { seconds: 7.5, urgent: false }, Act::Text { text: "Left you a voicemail about the referral." }],
    &[Act::Text { text: "Llegaré diez minutos tarde, lo siento" }],
];

/// What patients answer when the practice writes to them.
pub const ANSWERS: [&str; 5] = [
    "Thank you, that works for me.",
    "Perfect, see you then!",
    "Gracias, muy amable.",
    "OK, I will.",
    "Could it be an hour later?",
];

/// Draws patients and stories, the same ones for the same seed (splitmix64).
pub struct Cast {
    state: u64,
    pending: Vec<(usize, &'static Act)>,
}

impl Cast {
    pub fn new(seed: u64) -> Self {
        Self { state: seed, pending: Vec::new() }
    }

    /// A number below `bound`, which is not zero.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Who does what next.
    pub fn next_act(&mut self) -> (&'static Patient, &'static Act) {
        if self.pending.is_empty() {
            let patient = self.draw(PATIENTS.len() as u64) as usize;
            let story = STORIES[self.draw(STORIES.len() as u64) as usize];
            self.pending = story.iter().rev().map(|act| (patient, act)).collect();
        }
        let (patient, act) = self.pending.pop().expect("no story is empty");
        (&PATIENTS[patient], act)
    }
}

/// An RFC 5322 message from a patient to the practice.
pub struct Letter<'a> {
    pub patient: &'a Patient,
    pub to: &'a str,
    pub subject: &'a str,
    pub text: &'a str,
    pub file: Option<File>,
    /// Message-ID of what it answers, without angle brackets.
    pub in_reply_to: Option<&'a str>,
    /// Makes the Message-ID unique.
    pub serial: u64,
    pub at: Timestamp,
}

impl Letter<'_> {
    /// The message as it arrives: UTF-8 in base64, and a multipart where a file goes with it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let encoded = |bytes: &[u8]| {
            let text = data_encoding::BASE64.encode(bytes);
            text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\r\n").collect::<String>()
        };
        let word = |text: &str| format!("=?UTF-8?B?{}?=", data_encoding::BASE64.encode(text.as_bytes()));
        let date = self.at.to_jiff().strftime("%a, %d %b %Y %H:%M:%S +0000");
        let mut mail = format!(
            "From: {} <{}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{}.{}@patients.example.org>\r\n\
             MIME-Version: 1.0\r\n",
            word(self.patient.name),
            self.patient.email,
            self.to,
            word(self.subject),
            self.serial,
            self.at.millis(),
        );
        if let Some(parent) = self.in_reply_to {
            mail += &format!("In-Reply-To: <{parent}>\r\nReferences: <{parent}>\r\n");
        }
        let text = format!("{}\n\n{}", self.text, self.patient.name);
        let plain = format!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
            encoded(text.as_bytes())
        );
        let Some(file) = self.file else { return (mail + &plain).into_bytes() };
        let (name, media_type, bytes) = match file {
            File::Picture => ("picture.png", "image/png", picture(self.serial)),
            File::Letter => ("letter.txt", "text/plain", b"Your claim was paid in full on 28 October.\n".to_vec()),
        };
        mail += &format!(
            "Content-Type: multipart/mixed; boundary=\"part\"\r\n\r\n--part\r\n{plain}--part\r\nContent-Type: \
             {media_type}; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}--part--\r\n",
            encoded(&bytes)
        );
        mail.into_bytes()
    }
}

/// A small picture: soft bands of colour, as PNG (RFC 2083) with stored, uncompressed blocks.
fn picture(seed: u64) -> Vec<u8> {
    const SIDE: u32 = 96;
    let mut pixels = Vec::new();
    for y in 0..SIDE {
        pixels.push(0);
        for x in 0..SIDE {
            let wave = ((x + y + seed as u32 * 13) % SIDE) as u8;
            pixels.extend([230 - wave / 2, 190 - wave, 170 - wave / 2]);
        }
    }
    let mut zlib = vec![0x78, 0x01];
    let blocks = pixels.chunks(60_000).count();
    for (index, block) in pixels.chunks(60_000).enumerate() {
        zlib.push(u8::from(index + 1 == blocks));
        zlib.extend((block.len() as u16).to_le_bytes());
        zlib.extend((!(block.len() as u16)).to_le_bytes());
        zlib.extend(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &pixels {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    zlib.extend(((b << 16) | a).to_be_bytes());
    let mut header = Vec::new();
    header.extend(SIDE.to_be_bytes());
    header.extend(SIDE.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header), (b"IDAT", &zlib), (b"IEND", &Vec::new())] {
        png.extend((data.len() as u32).to_be_bytes());
        let start = png.len();
        png.extend(kind);
        png.extend(data);
        let sum = crc32(&png[start..]);
        png.extend(sum.to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_story() {
        let story = |seed| {
            let mut cast = Cast::new(seed);
            (0..50).map(|_| cast.next_act().0.name).collect::<Vec<_>>()
        };
        assert_eq!(story(1), story(1));
        assert_ne!(story(1), story(2));
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert!(picture(3).starts_with(b"\x89PNG"));
    }
}

//! English that nobody wrote: sentences from a seeded model of words, as far from repeating themselves as people's are.
//!
//! What repeats compresses, and what is noise does not: either would say little about mail. `gzip -1` makes 3,000
//! characters of this about as small as it makes 3,000 characters of a handbook.

/// Numbers that are the same in each run (SplitMix64).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// Of 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.roll() as u8)
    }
}

/// The more frequent ones first.
const WORDS: &str = "the to I and a of my for you is in it that have on was with me be this but not at if as she he we \
her his are had your so or when will can do has they been would what about an there from get am could were by one no \
out up please just any all some how back know like which also take since still her our time them day now need since \
only more did does over after next week before think because very who then last make see than going should than him \
two too off other into same again days every really until down pain medicine doctor appointment morning office called \
call first feel told go much good work well here night thank pills year where blood taking started even while may today \
new long another feeling having these few something help want getting better prescription insurance ago got left right \
hope never around being between those might most try number since sure three during months month weeks came without \
pharmacy husband mother daughter son wife father school little bit anything nothing already yesterday tomorrow worse \
usually always sometimes often though through came come gave give put seems sent send says said say asked ask let \
looking wondering available possible either once twice half hour hours minutes later early late Monday Tuesday \
Wednesday Thursday Friday weekend afternoon evening home letter form forms results result test tests lab x-ray scan \
referral specialist nurse visit visits knee back shoulder neck head stomach chest leg foot arm hand ear throat eye \
skin rash fever cough cold flu headache dizzy tired sleep eating drinking walking sitting standing lifting bending \
swelling swollen red itching burning sharp dull constant comes goes side effects dose milligrams tablet tablets \
capsule inhaler cream drops shot vaccine refill refills bottle empty running generic brand covered copay bill charge \
statement balance paid payment deductible plan card changed change address phone email message reach voicemail \
best way leave detailed cell daytime question questions answer wanted understand explain remember forgot forget \
mentioned discussed recommended suggested advised decided agreed tried stopped continued increased reduced switched \
noticed worried concerned nervous relieved happy sorry grateful surprised confused frustrated whether however although \
anyway besides instead rather quite almost nearly exactly probably maybe certainly perhaps especially apparently \
schedule reschedule cancel move earlier slot opening spot list waiting room parking building floor desk front door \
drive ride bus car traffic miles far close near lives live moved house apartment stairs job boss shift team practice \
soccer swimming garden dog trip travel flight leaving returning vacation wedding birthday holiday summer winter spring \
kids children baby pregnant grandson sister brother friend neighbor family history records copy fax portal password \
log website page upload picture photo attached attach sign signature signed date note paperwork employer disability \
therapy exercises stretching ice heat brace bandage stitches surgery surgeon operation recovery recovering hospital \
emergency urgent care ambulance pressure sugar cholesterol thyroid iron vitamin levels reading readings high low normal \
higher lower numbers range weight pounds lost gained diet salt bread coffee water breakfast lunch dinner meal meals \
allergy allergic penicillin ibuprofen tylenol aspirin antibiotic antibiotics metformin lisinopril sertraline albuterol \
prednisone infection sinus bladder kidney heart lung liver bone joint muscle nerve wound bruise lump mole breathing \
breath wheezing heartbeat anxious anxiety depressed mood memory hearing vision glasses dentist tooth jaw hip ankle \
wrist finger toe nail hair cut fell fall slipped twisted hurt hurting ache sore numb tingling weak stiff cramp spasm";

const NAMES: &[&str] = &[
    "Avery", "Blake", "Carmen", "Dana", "Elliot", "Frances", "Gale", "Harper", "Ines", "Jules", "Kerry", "Logan",
    "Marion", "Noel", "Ollie", "Paz", "Quinn", "Rene", "Sasha", "Toby", "Uma", "Val", "Wren", "Yael",
];

/// Somebody who writes.
pub struct Writer {
    pub dice: Dice,
    words: Vec<&'static str>,
}

impl Writer {
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), words: WORDS.split_whitespace().collect() }
    }

    /// Frequent ones more often, as Zipf found; now and then a name, a time, a date, an amount.
    fn word(&mut self, out: &mut String) {
        use std::fmt::Write;
        let written = match self.dice.below(60) {
            0 => write!(out, "{}", self.dice.pick(NAMES)),
            1 => write!(out, "{}:{:02}", 7 + self.dice.below(11), 5 * self.dice.below(12)),
            2 => write!(out, "{}/{}", 1 + self.dice.below(12), 1 + self.dice.below(28)),
            3 => write!(out, "{}", 1 + self.dice.below(400)),
            _ => {
                let place = (self.words.len() as f64).powf(self.dice.share()) - 1.0;
                out.push_str(self.words[place as usize]);
                Ok(())
            }
        };
        written.expect("a string takes everything");
    }

    fn sentence(&mut self, out: &mut String) {
        let start = out.len();
        let words = 4 + self.dice.below(16);
        for place in 0..words {
            if place > 0 {
                out.push_str(if self.dice.below(12) == 0 { ", " } else { " " });
            }
            self.word(out);
        }
        out[start..start + 1].make_ascii_uppercase();
        out.push_str(["? ", "! ", ". ", ". ", ". ", ". "][self.dice.below(6)]);
    }

    /// Text of about so many characters, in paragraphs.
    pub fn text(&mut self, chars: usize) -> String {
        let mut out = String::with_capacity(chars + 120);
        while out.len() < chars {
            self.sentence(&mut out);
            if self.dice.below(5) == 0 {
                out.truncate(out.trim_end().len());
                out.push_str("\n\n");
            }
        }
        out.truncate(out.trim_end().len());
        out
    }

    /// A few words, as in a subject.
    pub fn phrase(&mut self) -> String {
        let mut out = String::new();
        for place in 0..2 + self.dice.below(5) {
            if place > 0 {
                out.push(' ');
            }
            self.word(&mut out);
        }
        out[..1].make_ascii_uppercase();
        out
    }

    pub fn name(&mut self) -> &'static str {
        self.dice.pick(NAMES)
    }
}

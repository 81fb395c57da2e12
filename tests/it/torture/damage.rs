//! Damage at rest: a flipped bit, a cut or a missing file, anywhere in the store; and in a file and its copy at once.
//!
//! [`Whole`] says what has to hold after each.

use std::path::{Path, PathBuf};

use frontdesk::demo::patients::Cast;

use super::{
    count,
    disk::Image,
    runtime, seed,
    whole::{Alteration, TWICE, Whole},
};

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { to: usize },
    Removal,
}

impl Damage {
    fn draw(length: usize, random: &mut Cast) -> Self {
        let length = length as u64;
        match random.draw(10) {
            0..=6 => Self::Flip { at: random.draw(length) as usize, bit: random.draw(8) as u8 },
            7..=8 => Self::Cut { to: random.draw(length) as usize },
            _ => Self::Removal,
        }
    }

    fn apply(&self, image: &mut Image, file: &Path) {
        match self {
            Self::Removal => drop(image.0.remove(file)),
            Self::Flip { at, bit } => image.0.get_mut(file).unwrap().as_mut().unwrap()[*at] ^= 1 << bit,
            Self::Cut { to } => image.0.get_mut(file).unwrap().as_mut().unwrap().truncate(*to),
        }
    }
}

/// Files that are damaged together, by what the figures call them.
fn targets(whole: &Whole) -> Vec<(String, Vec<Vec<PathBuf>>)> {
    let single =
        whole.files().into_iter().map(|(kind, files)| (kind, files.into_iter().map(|file| vec![file]).collect()));
    let both = TWICE.map(|file| (format!("{file} and copy"), vec![vec![file.into(), format!("{file}.copy").into()]]));
    single.chain(both).collect()
}

/// No damage is silent; FRONTDESK_DAMAGES asks for more than 120 trials.
#[test]
fn damage_is_never_silent_and_spares_what_it_did_not_touch() {
    let (trials, seed) = (count("FRONTDESK_DAMAGES", 120), seed());
    let runtime = runtime();
    let whole = runtime.block_on(Whole::new(seed));
    let targets = targets(&whole);
    whole.try_all(&runtime, trials, |random| {
        let (kind, choices) = &targets[random.draw(targets.len() as u64) as usize];
        let files = &choices[random.draw(choices.len() as u64) as usize];
        let mut image = whole.image.clone();
        let mut damages: Vec<(&PathBuf, Damage)> = Vec::new();
        for file in files {
            let same = damages.last().map(|(_, damage)| damage.clone()).filter(|_| random.draw(2) == 0);
            let damage = same.unwrap_or_else(|| Damage::draw(whole.bytes(file).len(), random));
            damage.apply(&mut image, file);
            damages.push((file, damage));
        }
        Alteration { kind: kind.clone(), what: format!("{damages:?}"), image, exchanged: Vec::new() }
    });
}

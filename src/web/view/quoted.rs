//! Sets apart what a mail quotes, so that the page can fold it. Nothing is ever deleted (requirements E15).

/// A stretch of a mail's text.
#[derive(Debug, PartialEq, Eq)]
pub enum Block<'a> {
    Said(&'a str),
    Quoted(&'a str),
}

/// Splits a text into what was said and what was quoted, in order and complete but for blank lines between blocks.
///
/// Quoted are runs of lines that begin with `>`, with the line that announces them ("On … wrote:"), and everything
/// after a separator such as "-----Original Message-----".
pub fn fold(text: &str) -> Vec<Block<'_>> {
    let lines = lines_with_offsets(text);
    let mut blocks = Vec::new();
    let (mut start, mut i) = (0, 0);
    while i < lines.len() {
        let (at, line) = lines[i];
        if is_separator(line) || is_forwarded_header(&lines[i..]) {
            push(&mut blocks, Block::Said(&text[start..at]));
            push(&mut blocks, Block::Quoted(&text[at..]));
            return blocks;
        }
        let announced = announcement(&lines[i..]);
        if announced == 0 && !line.starts_with('>') {
            i += 1;
            continue;
        }
        push(&mut blocks, Block::Said(&text[start..at]));
        i += announced;
        while i < lines.len() && (lines[i].1.starts_with('>') || gap_within_quote(&lines[i..])) {
            i += 1;
        }
        start = lines.get(i).map_or(text.len(), |(offset, _)| *offset);
        push(&mut blocks, Block::Quoted(&text[at..start]));
    }
    push(&mut blocks, Block::Said(&text[start..]));
    blocks
}

fn push<'a>(blocks: &mut Vec<Block<'a>>, block: Block<'a>) {
    let block = match block {
        Block::Said(text) => Block::Said(text.trim_matches(['\r', '\n'])),
        Block::Quoted(text) => Block::Quoted(text.trim_matches(['\r', '\n'])),
    };
    let (Block::Said(text) | Block::Quoted(text)) = &block;
    if !text.trim().is_empty() {
        blocks.push(block);
    }
}

fn lines_with_offsets(text: &str) -> Vec<(usize, &str)> {
    let mut offset = 0;
    text.split_inclusive('\n')
        .map(|line| {
            let at = offset;
            offset += line.len();
            (at, line.trim_end())
        })
        .collect()
}

/// How many lines, blank ones included, announce a quotation that follows; 0 where none does.
fn announcement(lines: &[(usize, &str)]) -> usize {
    const OPENINGS: [&str; 5] = ["On ", "El ", "Am ", "Le ", "Il "];
    if !OPENINGS.iter().any(|opening| lines[0].1.starts_with(opening)) {
        return 0;
    }
    // Mail programs break a long announcement over two lines.
    let Some(end) = lines.iter().take(3).position(|(_, line)| line.ends_with(':')) else { return 0 };
    let blank = lines[end + 1..].iter().take_while(|(_, line)| line.is_empty()).count();
    let next = end + 1 + blank;
    if lines.get(next).is_some_and(|(_, line)| line.starts_with('>')) { next } else { 0 }
}

/// A blank line between two quoted ones.
fn gap_within_quote(lines: &[(usize, &str)]) -> bool {
    lines[0].1.is_empty() && lines.get(1).is_some_and(|(_, next)| next.starts_with('>'))
}

fn is_separator(line: &str) -> bool {
    let inner = line.trim_start_matches('-').trim_end_matches('-');
    line.starts_with("---")
        && line.ends_with("---")
        && ["original message", "mensaje original", "forwarded message"].contains(&inner.trim().to_lowercase().as_str())
}

/// The block of headers that Outlook puts above what it quotes.
fn is_forwarded_header(lines: &[(usize, &str)]) -> bool {
    let begins = |place: usize, words: &[&str]| {
        lines.get(place).is_some_and(|(_, line)| words.iter().any(|word| line.starts_with(word)))
    };
    begins(0, &["From: ", "De: ", "Von: "]) && begins(1, &["Sent: ", "Date: ", "Enviado", "Gesendet: ", "Fecha: "])
}

#[cfg(test)]
mod tests {
    use super::{Block::*, fold};

    #[test]
    fn quotes_are_set_apart_and_nothing_is_lost() {
        let cases: [(&str, Vec<super::Block<'_>>); 9] = [
            ("", vec![]),
            ("Hello", vec![Said("Hello")]),
            ("Yes.\n\n> Is it?\n> Really?\n", vec![Said("Yes."), Quoted("> Is it?\n> Really?")]),
            (
                "Yes.\n\nOn Tue, 3 Nov 2026 at 10:00,\nDesk <desk@example.org> wrote:\n\n> Is it?\n\n> Sure?\nBye",
                vec![
                    Said("Yes."),
                    Quoted("On Tue, 3 Nov 2026 at 10:00,\nDesk <desk@example.org> wrote:\n\n> Is it?\n\n> Sure?"),
                    Said("Bye"),
                ],
            ),
            ("> a\nno\n> b", vec![Quoted("> a"), Said("no"), Quoted("> b")]),
            ("On Monday I will call:\nTwice.", vec![Said("On Monday I will call:\nTwice.")]),
            (
                "Top\r\n-----Original Message-----\r\nFrom: x\r\nold",
                vec![Said("Top"), Quoted("-----Original Message-----\r\nFrom: x\r\nold")],
            ),
            ("Top\nFrom: x\nSent: y\n\nold", vec![Said("Top"), Quoted("From: x\nSent: y\n\nold")]),
            ("From: the pharmacy\nto you", vec![Said("From: the pharmacy\nto you")]),
        ];
        for (text, blocks) in cases {
            assert_eq!(fold(text), blocks, "{text:?}");
        }
    }

    #[test]
    fn odd_texts_come_to_an_end() {
        for text in ["On ", "On :\n", ">", "\n\n", "El \u{1F600}:\n>é", "--- ---", "De: \nEnviado"] {
            fold(text);
        }
    }
}

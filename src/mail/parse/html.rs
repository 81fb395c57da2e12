//! HTML from strangers: sanitised, without remote content, its links telling where they lead (requirements E13).

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ammonia::{Builder, Url, UrlRelative};

/// HTML beyond this is shown as text only.
const MAX_HTML_BYTES: usize = 2 * 1024 * 1024;
/// An HTML parser looks through its open elements for each tag, so that depth costs quadratic time.
const MAX_TAGS: usize = 40_000;

/// It compares each attribute of a tag with those before it: the squares of their numbers, together.
const MAX_ATTRIBUTE_WORK: usize = 300_000_000;

/// HTML that is safe to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleaned {
    pub html: String,
    /// Images that would have been loaded from elsewhere, and would have told the sender that the mail was read.
    pub blocked_images: usize,
}

/// Sanitises; `None` where the HTML is too large for that.
pub fn clean(html: &str) -> Option<Cleaned> {
    if html.len() > MAX_HTML_BYTES || !is_cheap(html) {
        return None;
    }
    let blocked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&blocked);
    let clean = Builder::default()
        .rm_tags(["map", "area"])
        .url_schemes(["http", "https", "mailto", "tel", "cid"].into())
        .url_relative(UrlRelative::Deny)
        .set_tag_attribute_value("a", "target", "_blank")
        .attribute_filter(move |element, attribute, value| {
            let is_cid = value.trim_start().get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("cid:"));
            match (element, attribute) {
                ("img", "src") if is_cid => Some(Cow::Borrowed(value)),
                ("img", "src") => {
                    counter.fetch_add(1, Ordering::Relaxed);
                    None
                }
                // A `cid:` link or quotation leads nowhere.
                (_, "href" | "cite") if is_cid => None,
                _ => Some(Cow::Borrowed(value)),
            }
        })
        .clean(html)
        .to_string();
    Some(Cleaned { html: name_hosts(&clean), blocked_images: blocked.load(Ordering::Relaxed) })
}

/// Whether an HTML parser gets through in time. What separates attributes is counted up to the next tag, text included,
/// since where a tag ends is not known before it is parsed.
fn is_cheap(html: &str) -> bool {
    let mut tags = 0;
    let mut separators = 0;
    let mut work = 0;
    for byte in html.bytes().chain([b'<']) {
        match byte {
            b'<' => {
                tags += 1;
                work += separators * separators;
                separators = 0;
            }
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b'/' | b'"' | b'\'' => separators += 1,
            _ => {}
        }
    }
    tags <= MAX_TAGS && work <= MAX_ATTRIBUTE_WORK
}

/// The text of HTML that [`clean`] made, or of any other.
pub fn to_text(html: &str) -> String {
    mail_parser::decoders::html::html_to_text(html)
}

/// Plain text as HTML.
pub fn from_text(text: &str) -> String {
    mail_parser::decoders::html::text_to_html(text)
}

/// Appends to each link where it leads, unless its own text says so: ` [host]`.
///
/// The input is a serialised tree, so every `<` starts a tag and every attribute is in double quotes.
fn name_hosts(html: &str) -> String {
    let mut out = String::with_capacity(html.len() + 64);
    let mut link: Option<(String, usize)> = None;
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let tag = &rest[..tag_end(rest)];
        if tag.starts_with("<a ") {
            link = attribute(tag, "href").and_then(destination).map(|place| (place, out.len() + tag.len()));
        } else if tag == "</a>"
            && let Some((place, text_start)) = link.take()
            && !says(&out[text_start..], &place)
        {
            out.push_str(" [");
            out.push_str(&ammonia::clean_text(&place));
            out.push(']');
        }
        out.push_str(tag);
        rest = &rest[tag.len()..];
    }
    out.push_str(rest);
    out
}

/// One past the `>` that ends the tag at the start of `text`.
fn tag_end(text: &str) -> usize {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'>' if !quoted => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let value = tag.split_once(&format!(" {name}=\""))?.1;
    value.split('"').next()
}

/// The host of a web link in its ASCII form, which look-alike letters cannot fool, or the address of a mail link.
fn destination(href: &str) -> Option<String> {
    let url = Url::parse(&href.replace("&amp;", "&")).ok()?;
    match url.scheme() {
        "http" | "https" => url.host_str().map(str::to_owned),
        "mailto" | "tel" => Some(url.path().to_owned()).filter(|path| !path.is_empty()),
        _ => None,
    }
}

fn says(link_html: &str, place: &str) -> bool {
    let text = to_text(link_html).trim().to_lowercase();
    let text = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(&text);
    text.strip_prefix(&place.to_lowercase()).is_some_and(|after| after.is_empty() || after.starts_with(['/', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(html: &str) -> String {
        clean(html).unwrap().html
    }

    #[test]
    fn nothing_runs_and_nothing_is_fetched() {
        let html = r#"<p onclick="x()">Hi<script>alert(1)</script><style>@import "https://t.example"</style>
            <img src="https://t.example/pixel.gif"><img src="//t.example/b.gif" alt="b"><IMG SRC="cid:logo@example.org">
            <iframe src="https://t.example"></iframe><form action="https://t.example"><input></form>
            <a href="javascript:alert(1)">x</a><div style="background:url(https://t.example)">y</div>
            <svg><a xlink:href="javascript:alert(1)">z</a></svg><table background="https://t.example/i.png"></table>"#;
        let cleaned = clean(html).unwrap();
        assert_eq!(cleaned.blocked_images, 1);
        for bad in ["script", "t.example", "onclick", "javascript", "iframe", "form", "style", "import"] {
            assert!(!cleaned.html.contains(bad), "{bad}: {}", cleaned.html);
        }
        assert!(cleaned.html.contains(r#"src="cid:logo@example.org""#));
    }

    #[test]
    fn links_tell_their_host_unless_their_text_does() {
        let html = cleaned(r#"<a href="https://evil.example/login?a=1&amp;b=2">your <b>bank</b></a>"#);
        assert!(html.contains("<b>bank</b> [evil.example]</a>"), "{html}");
        let html = cleaned(r#"<a href="https://evil.example/">https://bank.example/</a>"#);
        assert!(html.contains("[evil.example]"), "{html}");
        let html = cleaned(r#"<a href="https://bank.example.evil.example/">bank.example</a>"#);
        assert!(html.contains("[bank.example.evil.example]"), "{html}");
        for plain in [
            r#"<a href="https://www.example.org/x">https://www.example.org/x</a>"#,
            r#"<a href="https://www.example.org/x">www.example.org</a>"#,
            r#"<a href="mailto:desk@example.org?subject=x">desk@example.org</a>"#,
            r#"<a>no link</a>"#,
        ] {
            assert!(!cleaned(plain).contains('['), "{plain}");
        }
        assert!(cleaned(r#"<a href="mailto:desk@example.org">write</a>"#).contains("[desk@example.org]"));
        assert!(cleaned(r#"<a href="https://b&uuml;cher.example/">books</a>"#).contains("[xn--bcher-kva.example]"));
        assert!(
            cleaned(r#"<a href="https://e.example/" title='"><script>x</script>'>t</a>"#).contains("t [e.example]</a>")
        );
    }

    #[test]
    fn hosts_are_in_the_text_too() {
        let text = to_text(&cleaned(r#"<p>Please <a href="https://evil.example/">log in</a>.</p><p>Bye</p>"#));
        assert!(text.contains("log in [evil.example]"), "{text}");
        assert!(text.contains("Bye") && !text.contains('<'), "{text}");
    }

    #[test]
    fn deep_and_wide_html_is_declined_or_done_in_time() {
        assert_eq!(clean(&"<b>".repeat(MAX_TAGS + 1)), None);
        assert_eq!(clean(&"x".repeat(MAX_HTML_BYTES + 1)), None);
        let attributes: String = (0..100_000).map(|n| format!(" a{n}=1")).collect();
        assert_eq!(clean(&format!("<p{attributes}>")), None);
        assert!(clean(&"<div>".repeat(5_000)).is_some());
        assert!(clean(&format!("<p>{}</p>", "word ".repeat(15_000))).is_some());
    }
}

use super::*;

fn tokens(bytes: &[u8]) -> Vec<Token> {
    let mut tokenizer = Tokenizer::default();
    let mut tokens = Vec::new();
    tokenizer.feed(bytes, &mut tokens);
    tokenizer.release(&mut tokens);
    tokens
}

fn line(text: &str) -> Token {
    Token::Line(text.into())
}

const OK: Token = Token::Final(Ok(()));

fn stored(index: u16) -> Token {
    Token::Urc(Urc::Stored { storage: "SM".into(), index: Some(index) })
}

#[test]
fn answers_of_many_modems() {
    assert!(tokens(b"\r\nOK\r\n") == [OK]);
    assert!(tokens(b"AT+CSQ\r\r\n+CSQ: 21,99\r\n\r\nOK\r\n") == [line("AT+CSQ"), line("+CSQ: 21,99"), OK]);
    assert!(tokens(b"\n+CSQ: 21,99\nOK\n") == [line("+CSQ: 21,99"), OK], "bare line feeds");
    assert!(tokens(b"\r\r\n+CSQ: 21,99\r\r\nOK\r\r\n") == [line("+CSQ: 21,99"), OK]);
    for (text, failure) in [
        ("ERROR", Failure::Plain),
        ("+CMS ERROR: 322", Failure::Cms(322)),
        ("+CMS ERROR:38", Failure::Cms(38)),
        ("+CME ERROR: 14", Failure::Cme(14)),
        ("+CME ERROR: SIM busy", Failure::Cme(14)),
        ("+CMS ERROR: Unknown error", Failure::Words),
    ] {
        assert!(tokens(format!("\r\n{text}\r\n").as_bytes()) == [Token::Final(Err(failure))], "{text}");
    }
}

#[test]
fn prompts_come_in_every_shape() {
    assert!(tokens(b"\r\n> ") == [Token::Prompt]);
    assert!(tokens(b">") == [Token::Prompt], "bare");
    assert!(tokens(b"AT+CMGS=23\r\r\n> ") == [line("AT+CMGS=23"), Token::Prompt]);
    // With echo the PDU comes back behind the prompt.
    let echoed = tokens(b"\r\n> 0011\x1a\r\n+CMGS: 7\r\n\r\nOK\r\n");
    assert!(echoed == [Token::Prompt, line("0011"), line("+CMGS: 7"), OK]);
}

#[test]
fn urcs_are_taken_out() {
    assert!(tokens(b"\r\n+CMTI: \"SM\",3\r\n") == [stored(3)]);
    assert!(tokens(b"\r\n+CMTI: ,-1\r\n") == [Token::Urc(Urc::Stored { storage: String::new(), index: None })]);
    assert!(tokens(b"\r\nRING\r\n\r\n^RSSI: 12\r\n\r\n+CREG: 1\r\n").iter().all(|t| *t == Token::Urc(Urc::Other)));
    assert!(tokens(b"\r\n+CREG: 1,\"00C3\",\"0B12\"\r\n") == [Token::Urc(Urc::Other)]);
    assert!(tokens(b"\r\n+CREG: 0,1\r\n\r\nOK\r\n") == [line("+CREG: 0,1"), OK], "the answer is no URC");
}

#[test]
fn direct_deliveries_come_out_whole_and_at_once() {
    let direct = |is_report, tpdu_octets, line: &str| {
        Token::Urc(Urc::Direct(Direct { is_report, tpdu_octets, line: line.into() }))
    };
    let mut tokenizer = Tokenizer::default();
    let mut out = Vec::new();
    tokenizer.feed(b"\r\n+CMT: ,3\r\n00040B91\r\n", &mut out);
    assert!(out == [direct(false, 3, "00040B91")], "nothing more needs to come");
    assert!(tokens(b"\r\n+CDS: 3\r\n000406C8\r\n\r\n+CMTI: \"SM\",3\r\n") == [direct(true, 3, "000406C8"), stored(3)]);
    assert!(
        tokens(b"\r\n+CMT: \"A, B\",3\r\n\r\n+CMTI: \"SM\",3\r\nnonsense\r\n")
            == [stored(3), direct(false, 3, "nonsense")]
    );
}

/// Requirements S2, nastiest case 1.
#[test]
fn a_urc_at_every_byte_of_an_answer_changes_nothing() {
    let dialogues = [
        concat!(
            "\r\n+CMGL: 1,1,,23\r\n07914151550591F9040B914151550541F2\r\n",
            "+CMGL: 2,0,\"A, B\",24\r\n0791415155059100\r\n\r\nOK\r\n"
        ),
        "\r\n> ",
        "\r\n+CMGS: 123\r\n\r\nOK\r\n",
        "\r\n+CMS ERROR: 38\r\n",
    ];
    for dialogue in dialogues {
        let expected = tokens(dialogue.as_bytes());
        for at in 0..=dialogue.len() {
            let (before, behind) = dialogue.split_at(at);
            let mut got = tokens(format!("{before}\r\n+CMTI: \"SM\",12\r\n{behind}").as_bytes());
            let urc = got.iter().position(|token| *token == stored(12));
            got.remove(urc.unwrap_or_else(|| panic!("no URC at {at} of {dialogue:?}")));
            // A digit that a URC cuts off an error leaves it an error: it had to come out at once.
            if before.ends_with("ERROR: 3") {
                assert!(got[0] == Token::Final(Err(Failure::Cms(3))));
            } else {
                assert!(got == expected, "at {at} of {dialogue:?}");
            }
        }
    }
}

#[test]
fn pieces_of_any_size_make_the_same_tokens() {
    let bytes = b"ATE0\r\r\nOK\r\n\r\n+CMGL: 1,1,,3\r\n00040B91\r\n\r\n+CMTI: \"SM\",3\r\n\r\nOK\r\n\r\n> \r\n+CMT: ,3\r\n00040B91\r\n";
    let whole = tokens(bytes);
    for size in 1..20 {
        let mut tokenizer = Tokenizer::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            tokenizer.feed(piece, &mut out);
        }
        tokenizer.release(&mut out);
        assert!(out == whole, "{size}");
    }
}

#[test]
fn noise_is_bounded_and_never_panics() {
    let seed = b"\r\n+CMGL: 1,1,,23\r\n07914151550591F9\r\n\r\n+CMT: ,3\r\n00040B91\r\n+CMS ERROR: 38\r\n> +CPMS: \"SM\",3,20\r\n+CNMI: (0-2),(0,1)\r\n\r\nOK\r\n";
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = seed.to_vec();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.insert(at, random(256) as u8),
                _ => drop(bytes.drain(at..(at + random(9)).min(bytes.len()))),
            }
        }
        for token in tokens(&bytes) {
            let Token::Line(line) = token else { continue };
            let _ = (listed(&line), read_header(&line), storage_use(&line), signal_dbm(&line), registration(&line));
            let _ = (digits(&line), value_lists(&line, "+CNMI"), pdu_octets(&line, 3), submitted_reference(&line));
        }
    }
    let mut tokenizer = Tokenizer::default();
    let mut out = Vec::new();
    tokenizer.feed(&vec![b'x'; 1 << 20], &mut out);
    tokenizer.feed(b"\r\n\r\nOK\r\n", &mut out);
    assert!(matches!(&out[..], [Token::Line(line), Token::Final(Ok(()))] if line.len() == MAX_LINE_BYTES));
}

#[test]
fn typed_answers() {
    assert_eq!(listed("+CMGL: 3,1,\"Doe, J\",25"), Some(Listed { index: 3, status: 1, tpdu_octets: 25 }));
    assert_eq!(listed("+CMGL: 3,\"REC UNREAD\",,25").map(|l| l.status), Some(0));
    assert_eq!(listed("+CMGL: x,1,,25"), None);
    assert_eq!(read_header("+CMGR: 0,,25"), Some((0, 25)));
    let used = |name: &str, used, total| StorageUse { name: name.into(), used, total };
    assert_eq!(storage_use("+CPMS: \"SM\",3,20,\"ME\",0,255"), Some(vec![used("SM", 3, 20), used("ME", 0, 255)]));
    assert_eq!(storage_use("+CPMS: 3,20,3,20,3,20").map(|uses| uses.len()), Some(3));
    assert_eq!(signal_dbm("+CSQ: 21,99"), Some(Some(-71)));
    assert_eq!(signal_dbm("+CSQ: 99,99"), Some(None));
    assert_eq!(registration("+CREG: 2,5,\"00C3\",\"0B12\",7"), Some(Registration::Roaming));
    assert_eq!(registration("+CEREG: 0,3"), Some(Registration::Denied));
    assert_eq!(sim_state("+CPIN: SIM PIN").as_deref(), Some("SIM PIN"));
    assert_eq!(submitted_reference("+CMGS: 255"), Some(255));
    assert_eq!(digits("+CCID: \"8900100000000000001F\"").as_deref(), Some("8900100000000000001"));
    assert_eq!(digits("001017550000011").as_deref(), Some("001017550000011"));
    assert_eq!(digits("GSM1800"), None);
    let lists = value_lists("+CNMI: (0-2),(0,1,3),(0),1,(0,1)", "+CNMI").unwrap();
    assert_eq!(lists, [vec!["0", "1", "2"], vec!["0", "1", "3"], vec!["0"], vec!["1"], vec!["0", "1"]]);
    let lists = value_lists("+CPMS: (\"SM\",\"ME\"),(\"SM\")", "+CPMS").unwrap();
    assert_eq!(lists, [vec!["SM", "ME"], vec!["SM"]]);
    assert_eq!(pdu_octets("0004", 1), Some(vec![0, 4]));
    assert_eq!(pdu_octets("0411", 2), Some(vec![0, 4, 0x11]), "an SMSC that is missing is added");
    assert_eq!(pdu_octets("00041", 2), None);
}

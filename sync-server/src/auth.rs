//! Who may do what. Static tokens from a file, or everybody (`--auth none`, on loopback only).

use std::hint::black_box;

use coheap_core::limits;

/// What a token proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Who.
    pub subject: String,
    /// May it commit?
    pub can_write: bool,
}

/// How connections are let in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Everybody, with all rights.
    None,
    /// Who has one of these tokens.
    Tokens(Vec<(String, Grant)>),
}

impl Auth {
    /// Reads a token file: lines `TOKEN SUBJECT [rw|ro]`, `#` begins a comment.
    pub fn parse(text: &str) -> Result<Auth, String> {
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let (token, subject, rights) = match words.as_slice() {
                [] => continue,
                [token, subject] => (token, subject, "rw"),
                [token, subject, rights] => (token, subject, *rights),
                _ => return Err(format!("line {number}: expected TOKEN SUBJECT [rw|ro]")),
            };
            let can_write = match rights {
                "rw" => true,
                "ro" => false,
                other => return Err(format!("line {number}: rights are rw or ro, not {other}")),
            };
            if subject.len() > limits::NAME_BYTES_MAX || token.len() > limits::TOKEN_BYTES_MAX {
                let (name, token) = (limits::NAME_BYTES_MAX, limits::TOKEN_BYTES_MAX);
                return Err(format!("line {number}: a subject has at most {name} bytes, a token {token}"));
            }
            tokens.push(((*token).to_owned(), Grant { subject: (*subject).to_owned(), can_write }));
        }
        if tokens.is_empty() { Err("it holds no token".to_owned()) } else { Ok(Auth::Tokens(tokens)) }
    }

    /// What a token proves; `None` if nothing. Takes the same time for every token of one length.
    pub fn check(&self, token: &str) -> Option<Grant> {
        match self {
            Auth::None => Some(Grant { subject: String::new(), can_write: true }),
            Auth::Tokens(tokens) => {
                let mut found = None;
                for (known, grant) in tokens {
                    if same(known.as_bytes(), token.as_bytes()) {
                        found = Some(grant);
                    }
                }
                found.cloned()
            }
        }
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_gives_subjects_and_rights() {
        let auth = Auth::parse("# who\nabc alice\ndef bob ro # reads\n\n").unwrap();
        assert_eq!(auth.check("abc"), Some(Grant { subject: "alice".into(), can_write: true }));
        assert_eq!(auth.check("def"), Some(Grant { subject: "bob".into(), can_write: false }));
        assert_eq!(auth.check("ab"), None);
        assert_eq!(auth.check(""), None);
        assert!(Auth::parse("lonely").is_err());
        assert!(Auth::parse("a b maybe").is_err());
        // What a frame or a record could not carry.
        assert!(Auth::parse(&format!("a {}", "b".repeat(256))).is_ok());
        assert!(Auth::parse(&format!("a {}", "b".repeat(257))).is_err());
        assert!(Auth::parse(&format!("{} b", "a".repeat(8193))).is_err());
        assert!(Auth::parse("# nothing\n").is_err());
    }
}

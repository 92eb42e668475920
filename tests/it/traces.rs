//! The counterexamples of CORE-PROTOCOL §12, and a trace for rules that have none there: `tests/golden/traces/`, one script each.
//! Goal: each fails when the rule that its header names is taken out. Method: `coheap_tests::trace`, every step by hand, with
//! P2 to P6 looked at after each. Replay one: `cargo test -p coheap-tests traces::x01`.

use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/traces")
}

fn play(name: &str) {
    let script = fs::read_to_string(folder().join(format!("{name}.txt"))).expect("a script");
    coheap_tests::trace::play(name, &script);
}

macro_rules! traces {
    ($($name:ident)*) => {
        const TRACES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                play(stringify!($name));
            }
        )*
    };
}

traces! {
    w01 w02 w03 w04 w05 w06 w07 w08 w09
    x01 x02 x03 x05 x07 x08 x09 x10 x11 x13 x13b x14 x15 x16 x17 x18 x19 x20 x23 x24 x25 x26 x27 x28 x29 x30 x31 x31b x32 x33 x34
    x35 x36 x37 x38 x39 x40 x42 x43
    r01 r06 r08 r11 r12
    c01 c03 c04 c05 c05b c08 c09 c10 c10b
    d03 d04 d04b d04c d04d d04e d05 d06 d07
    f04 g01 g03 g05 g05b g05c
    l03 l03b l04 l05 l05b l06
    t01 t02 t03 t03b t04 t05
}

#[test]
fn every_trace_is_played() {
    let mut files: Vec<String> = fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut played = TRACES.to_vec();
    played.sort_unstable();
    assert_eq!(files, played, "the files of tests/golden/traces (left) and the list above");
}

//! Any text as a query: the parser never panics, and what it lays out it reads back as the same.
#![no_main]

use lampad_collector::query::{Features, format, parse, parse_selector, tree};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    let _ = parse_selector(text);
    let _ = parse(text, Features::default());
    if parse(text, Features::ALL).is_err() {
        return Corpus::Keep;
    }
    // A tree that is too deep to be shown is refused; whatever is shown must be readable. Infinity is written with its sign, as
    // Prometheus does, which is read back as a sign of its own.
    let _ = tree(text);
    if let Ok(laid_out) = format(text)
        && !laid_out.contains("+Inf")
        && let Ok(again) = format(&laid_out)
    {
        assert_eq!(again, laid_out, "laid out twice, it is not the same");
        assert!(parse(&laid_out, Features::ALL).is_ok(), "{laid_out:?} is not read back");
    }
    Corpus::Keep
});

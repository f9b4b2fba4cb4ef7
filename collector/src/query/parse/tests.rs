use super::*;

fn wrong(text: &str) -> String {
    parse(text, Features::ALL).unwrap_err().to_string()
}

#[test]
fn deep_queries_end_in_an_answer() {
    for (open, close) in [("(", ")"), ("-", ""), ("abs(", ")"), ("1+", ""), ("1^", ""), ("1 or ", "")] {
        for count in [50, 500, 1_900, 100_000] {
            let text = format!("{}vector(1){}", open.repeat(count), close.repeat(count));
            let _ = parse(&text, Features::ALL);
            let _ = format(&text);
            let _ = tree(&text);
        }
    }
    assert!(wrong(&format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000))).contains("split the query"));
}

#[test]
fn strings_do_not_count() {
    assert_eq!(openings(r#"a{b="(((\"((("} + '((' + `((\`"#), 2);
    // A quote in a comment opens nothing.
    let commented = format!("# it's\n{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(parse(&commented, Features::ALL).unwrap_err().to_string().contains("at most"));
}

/// What comes back in one line tells how operators and modifiers were bound.
#[test]
fn texts_come_back_as_they_were_meant() {
    for (text, printed) in [
        ("1_000 + 0x1F", "1000 + 31"),
        ("5m", "5m"),
        ("-1h30m", "-1h30m"),
        ("sum(x)by(a,)", "sum by (a) (x)"),
        ("SUM without() (x)", "sum without () (x)"),
        ("count_values(\"v\", x)", "count_values(\"v\", x)"),
        ("topk by (a) (5, x)", "topk by (a) (5, x)"),
        ("sum + by{a=\"b\"} + offset", "sum + by{a=\"b\"} + offset"),
        ("rate(x[5m]offset 1d @ 3)", "rate(x[5m] @ 3.000 offset 1d)"),
        ("x @ end() offset -1m", "x @ end() offset -1m"),
        ("x offset 1m + 2m", "x offset 1m + 2m"),
        ("x offset -2 ^ 2", "x offset -2s ^ 2"),
        ("x offset (1m + 2m)", "x offset (1m + 2m)"),
        ("x[1m * 2 + step():range() / 3]", "x[1m * 2s + step():range() / 3s]"),
        ("rate(x[max_of(5m, 2 * step())])", "rate(x[max_of(5m, 2s * step())])"),
        ("rate(x[5m] anchored)", "rate(x[5m] anchored)"),
        ("rate(x smoothed [5m] offset 1m)", "rate(x[5m] smoothed offset 1m)"),
        ("x + on (a) group_left () fill_left (0) y", "x + on (a) group_left () fill_left (0) y"),
        ("x == bool fill(-1) y", "x == bool fill (-1) y"),
        ("x + fill", "x + fill"),
        ("{\"a.b\", c=~\"d\"}", "{\"a.b\",c=~\"d\"}"),
        ("{\"a\"}", "a"),
        ("a{\"b.c\"=\"\\xc5\"}", "a{\"b.c\"=\"\u{fffd}\"}"),
        ("-x ^ 2 * 3", "-x ^ 2 * 3"),
        ("x[5m:]", "x[5m:]"),
        ("sum(x) # all of them\n+ 1", "sum(x) + 1"),
        ("`\\n` ", "\"\\\\n\""),
        ("avg by (\"a b\", on) (x)", "avg by (\"a b\", on) (x)"),
        ("a:b:c{le=\"+Inf\"} > Inf", "a:b:c{le=\"+Inf\"} > +Inf"),
        ("step() + range()", "step() + range()"),
    ] {
        assert_eq!(format(text).unwrap(), printed, "{text}");
    }
}

#[test]
fn signs_bind_as_in_mathematics() {
    let tree = |text: &str| tree(text).unwrap();
    assert_eq!(tree("-x ^ 2")["type"], "unaryExpr");
    assert_eq!(tree("-x * 2")["lhs"]["type"], "unaryExpr");
    assert_eq!(tree("2 ^ 3 ^ 4")["rhs"]["op"], "^");
    assert_eq!(tree("2 - 3 - 4")["lhs"]["op"], "-");
    assert_eq!(tree("a or b and c")["rhs"]["op"], "and");
    assert_eq!(tree("a offset 1m + 2m")["op"], "+");
    assert_eq!(tree("a < b + c * d")["rhs"]["rhs"]["op"], "*");
}

#[test]
fn errors_are_prometheus_own() {
    for (text, message) in [
        ("", "1:1: parse error: no expression found in input"),
        ("sum(", "1:5: parse error: unclosed left parenthesis"),
        ("a)", "1:3: parse error: unexpected right parenthesis ')'"),
        ("sum(a b)", "1:7: parse error: unexpected identifier \"b\" in aggregation"),
        ("sum by (x) (abs(1 2))", "1:19: parse error: unexpected number \"2\" in aggregation"),
        ("abs(a b)", "1:7: parse error: unexpected identifier \"b\""),
        ("1e", "1:1: parse error: bad number or duration syntax: \"1e\""),
        ("a[5m", "1:5: parse error: unclosed left bracket"),
        ("a ! b", "1:3: parse error: unexpected character after '!': ' '"),
        (
            "sum(a) @ 5",
            "1:1: parse error: @ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        ("a\n  b", "2:3: parse error: unexpected identifier \"b\""),
        ("1 + + on", "1:7: parse error: unexpected <on>"),
        ("a)b", "1:3: parse error: unexpected right parenthesis ')'"),
        ("sum(rate(a[5m)) ", "1:14: parse error: unexpected \")\" in subquery or range, expected \":\" or \"]\""),
        ("sum(rate(a[5m]) by (b)", "1:17: parse error: unexpected <by> in aggregation"),
        (
            "sum by (a b)(c))",
            "1:11: parse error: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\"",
        ),
        ("\"\\q\" + )", "1:1: parse error: unknown escape sequence U+0071 'q'"),
        ("}", "1:1: parse error: unexpected character: '}'"),
        ("a{{", "1:3: parse error: unexpected left brace '{'"),
        ("a{b-c=\"d\"}", "1:4: parse error: unexpected character inside braces: '-'"),
        ("a{b==\"c\"}", "1:5: parse error: unexpected \"=\" in label matching, expected string"),
        ("a{\"b\"}", "1:1: parse error: metric name must not be set twice: \"a\" or \"b\""),
        ("a =~ \"b\"", "1:3: parse error: unexpected character after '=': '~'"),
        ("a !", "1:3: parse error: unexpected character after '!': '\u{fffd}'"),
        ("a @ start", "1:10: parse error: unexpected end of input in @, expected timestamp"),
        ("a[m]", "1:3: parse error: unexpected character in duration expression: 'm'"),
        ("a[$__interval]", "1:3: parse error: unexpected character in duration expression: '$'"),
        ("a[-m]", "1:4: parse error: unexpected character in duration expression: 'm'"),
        ("a[", "1:3: parse error: unexpected end of input in duration expression"),
        ("a[[5m]]", "1:3: parse error: unexpected character in duration expression: '['"),
        ("a[5m[5m]]", "1:5: parse error: unexpected left bracket '['"),
        ("a[:1m]", "1:4: parse error: unexpected colon before duration in duration expression"),
        ("a[5m:1m:1m]", "1:8: parse error: unexpected colon ':'"),
        ("1h30", "1:1: parse error: bad number or duration syntax: \"1h30\""),
        ("a[1h30]", "1:3: parse error: bad number or duration syntax: \"1h30\""),
        ("a offset 5m5", "1:10: parse error: bad number or duration syntax: \"5m5\""),
        ("5min", "1:1: parse error: bad number or duration syntax: \"5mi\""),
        ("5x", "1:1: parse error: bad number or duration syntax: \"5\""),
        ("1y2y", "1:1: parse error: bad number or duration syntax: \"1y2\""),
        ("1h_30", "1:1: parse error: bad number or duration syntax: \"1h_\""),
        ("1.2.3", "1:1: parse error: bad number or duration syntax: \"1.2.\""),
        ("1__0", "1:1: parse error: bad number or duration syntax: \"1__\""),
        ("1ee5", "1:1: parse error: bad number or duration syntax: \"1ee\""),
        ("1.5m", "1:1: parse error: unknown unit \".\" in duration \"1.5m\""),
        ("5hs", "1:1: parse error: unknown unit \"hs\" in duration \"5hs\""),
        ("a{b}", "1:4: parse error: unexpected \"}\" in label matching, expected label matching operator"),
        ("a{b=1}", "1:5: parse error: unexpected character inside braces: '1'"),
        ("a{b=\"c\"", "1:8: parse error: unexpected end of input inside braces"),
        ("{a=\"\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("a{__name__=\"b\"}", "1:1: parse error: metric name must not be set twice: \"a\" or \"b\""),
        ("nope(", "1:6: parse error: unclosed left parenthesis"),
        ("nope(a)", "1:1: parse error: unknown function with name \"nope\""),
        ("rate(a)", "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector"),
        ("rate()", "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 0"),
        ("round(a, 1, 2)", "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3"),
        ("abs(a,)", "1:6: parse error: trailing commas not allowed in function call args"),
        ("1 > 2", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("1 and a", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
        ("a and on(x) group_left() b", "1:1: parse error: no grouping allowed for \"and\" operation"),
        ("a * on(x) group_left(x) b", "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once"),
        ("a[0s]", "1:3: parse error: duration must be greater than 0"),
        ("a[5m] [1m:]", "1:1: parse error: subquery is only allowed on instant vector, got matrix instead"),
        ("sum(a)[5m]", "1:7: parse error: ranges only allowed for vector selectors"),
        ("a offset 1m [5m]", "1:13: parse error: no offset modifiers allowed before range"),
        ("a offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"),
        ("a[1m / 0]", "1:6: parse error: division by zero"),
        ("a[5m] anchored smoothed", "1:16: parse error: anchored and smoothed modifiers cannot be used together"),
        ("abs(\"\\q\")", "1:5: parse error: unknown escape sequence U+0071 'q'"),
        ("'\\\"'", "1:1: parse error: unknown escape sequence U+0022 '\"'"),
        ("\"\\\t\"", "1:1: parse error: unknown escape sequence U+0009"),
        ("\"\\x1\"", "1:1: parse error: illegal character U+0022 '\"' in escape sequence"),
        ("\"\\18a\"", "1:1: parse error: illegal character U+0038 '8' in escape sequence"),
        ("\"\\777\"", "1:1: parse error: escape sequence is an invalid Unicode code point"),
        ("\"\\ud800\"", "1:1: parse error: escape sequence is an invalid Unicode code point"),
        ("\"a", "1:1: parse error: unterminated quoted string"),
        (
            "a + 1e400",
            "1:5: parse error: error parsing number: strconv.ParseFloat: parsing \"1e400\": value out of range",
        ),
        ("a{b=~\"(\"}", "1:3: parse error: error parsing regexp: missing closing ): `(`"),
        ("a{b=~\"(\", c=\"d\"", "1:3: parse error: error parsing regexp: missing closing ): `(`"),
        ("a{b=~\"x)y\"}", "1:3: parse error: error parsing regexp: unexpected ): `x)y`"),
        ("a{b=~\"a|*\"}", "1:3: parse error: error parsing regexp: missing argument to repetition operator: `*`"),
        ("a{b!~\"{2}\"}", "1:3: parse error: error parsing regexp: missing argument to repetition operator: `{2}`"),
        ("a{b=~\"(?i\"}", "1:3: parse error: error parsing regexp: invalid or unsupported Perl syntax: `(?i`"),
        ("a{b=~\"(?<\"}", "1:3: parse error: error parsing regexp: invalid or unsupported Perl syntax: `(?<`"),
        ("a{b=~`\\pN\\pX`}", "1:3: parse error: error parsing regexp: invalid character class range: `\\pX`"),
        // Once read as a duration of no length, again and again.
        (".5m", "1:1: parse error: not a valid duration string: \".5m\""),
    ] {
        assert_eq!(wrong(text), message, "{text}");
    }
    assert!(wrong("avg_over_time(a[5m] anchored)").contains("not with avg_over_time"));
}

#[test]
fn what_is_off_is_refused_with_the_name_of_its_switch() {
    for (text, feature) in [
        ("a[5m + 1m]", "promql-duration-expr"),
        ("a offset step()", "promql-duration-expr"),
        ("rate(a[5m] anchored)", "promql-extended-range-selectors"),
        ("a + fill(0) b", "promql-binop-fill-modifiers"),
        ("limitk(1, a)", "promql-experimental-functions"),
        ("info(a)", "promql-experimental-functions"),
    ] {
        let error = parse(text, Features::default()).unwrap_err().to_string();
        assert!(error.contains(feature), "{text}: {error}");
        assert!(parse(text, Features::ALL).is_ok(), "{text}");
    }
    for text in ["a[5m]", "a[-5m]", "a offset -5m", "a[300]", "anchored + smoothed + fill + step"] {
        assert_eq!(parse(text, Features::default()).is_ok(), text != "a[-5m]", "{text}");
    }
}

#[test]
fn long_expressions_are_broken_up() {
    let text = format!("sum by (a) (rate({}[5m])) / on (a) count(y)", "x".repeat(90));
    let x = "x".repeat(90);
    assert_eq!(format(&text).unwrap(), format!("  sum by (a) (\n    rate({x}[5m])\n  )\n/ on (a)\n  count(y)"));
}

/// Conditions lie side by side and deepen nothing, however many there are.
#[test]
fn conditions_are_no_brackets() {
    let matchers: Vec<String> = (0..1_000).map(|at| format!("l{at}=\"\"")).collect();
    let selector = format!("x{{{}}}", matchers.join(","));
    assert!(super::format(&selector).is_ok());
    assert_eq!(super::openings(&format!("sum(rate({selector}[5m])) + 1")), 4);
}

//! `GET /`: who pushes and how they are, for a browser without scripts.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use tokio::time::Instant;

use super::Web;
use super::targets::time;

const HEAD: &str = r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Lampad</title>
<meta http-equiv="refresh" content="5"><meta name="viewport" content="width=device-width"><style>
body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse}
th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}
.up{color:#0a7a32}.down{color:#b3261e}b{font-weight:600}small{color:#666}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}a{color:#8ab4f8}th,td{border-color:#333}.up{color:#57c97f}.down{color:#ff8a80}}
</style></head><body><h1>Lampad</h1>
"#;

const LINKS: &str = r#"<p><a href="/metrics">/metrics</a> · <a href="/api/v1/targets">targets</a> ·
<a href="/api/v1/query?query=up">query?query=up</a> · <a href="/api/v1/labels">labels</a> ·
<a href="/api/v1/metadata">metadata</a> · <a href="/api/v1/status/buildinfo">build info</a> ·
<a href="/-/healthy">healthy</a> · <a href="/-/ready">ready</a></p>
"#;

pub async fn page(State(web): State<Arc<Web>>) -> Html<String> {
    let now = Instant::now();
    let agents = web.registry.agents();
    let up = agents.iter().filter(|agent| agent.is_up(now)).count();
    let mut out = String::from(HEAD);
    // Writing to a String does not fail.
    let _ =
        write!(out, "<p>lampad-collector {}, {} agents, {up} up.</p>{LINKS}", env!("CARGO_PKG_VERSION"), agents.len());
    if agents.is_empty() {
        out.push_str(
            "<p>No agent has pushed yet. Start one with <code>lampad-agent --collector http://HOST:PORT</code>.</p>",
        );
    } else {
        out.push_str("<table><tr><th>instance<th>state<th>jobs<th>modules<th>last push<th>lag<th>clock<th>version<th>from</tr>\n");
    }
    for agent in &agents {
        let state = agent.state();
        let health = if agent.is_up(now) { r#"<b class="up">UP</b>"# } else { r#"<b class="down">DOWN</b>"# };
        let jobs: Vec<String> = state.jobs.iter().map(|job| escape(&job.to_string())).collect();
        let _ = write!(
            out,
            "<tr><td>{}<br><small>{}</small>",
            escape(&state.hello.instance),
            escape(&state.hello.hostname)
        );
        let _ = write!(out, "<td>{health}<td>{}<td>{}", jobs.join(", "), modules(&state));
        let pushed = if state.last_push_ms > 0 { time(state.last_push_ms) } else { "never".into() };
        let lag = if state.last_push_ms > 0 { format!("{} ms", state.lag_ms) } else { String::new() };
        let clock = match state.clock_shift_ms {
            0 => "good".to_owned(),
            shift => format!(r#"<span class="down">off, shifted by {:.1} s</span>"#, shift as f64 / 1000.0),
        };
        let peer = state.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let _ = writeln!(out, "<td>{pushed}<td>{lag}<td>{clock}<td>{}<td>{peer}</tr>", escape(&state.hello.version));
    }
    if !agents.is_empty() {
        out.push_str("</table>");
    }
    out.push_str("</body></html>\n");
    Html(out)
}

fn modules(state: &crate::fleet::State) -> String {
    let up = state.modules.values().filter(|module| module.up).count();
    let mut out = format!("{up} up");
    for (name, module) in state.modules.iter().filter(|(_, module)| module.is_failing()) {
        let _ =
            write!(out, r#"<br><span class="down">{}</span> <small>{}</small>"#, escape(name), escape(&module.error));
    }
    let absent: Vec<_> = state.modules.iter().filter(|(_, module)| module.absent).collect();
    if !absent.is_empty() {
        let _ = write!(out, "<details><summary>{} with nothing to read there</summary>", absent.len());
        for (name, module) in absent {
            let _ = write!(out, "{} <small>{}</small><br>", escape(name), escape(&module.error));
        }
        out.push_str("</details>");
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_agents_say_cannot_become_markup() {
        assert_eq!(super::escape("<a b=\"'&\">"), "&lt;a b=&quot;&#39;&amp;&quot;&gt;");
    }
}

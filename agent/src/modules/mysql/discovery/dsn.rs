//! A server in one line of text.

use std::path::PathBuf;

use super::super::settings::Secret;
use super::super::target::{Address, DEFAULT_PORT, Target, Tls, TlsMode};
use super::{DiscoveryError, Login};

/// `mysql://[user[:password]@][host[:port]][?socket=PATH&ssl-mode=MODE&ssl-ca=FILE&ssl-cert=FILE&ssl-key=FILE]`, or the bare
/// path of a socket. The last `@` before the address ends the password, so that most passwords need no `%XX`.
pub fn parse_dsn(dsn: &Secret, os_user: &str) -> Result<Target, DiscoveryError> {
    let wrong = |detail: &str| DiscoveryError::Dsn { detail: detail.to_owned() };
    let origin = "--mysql or LAMPAD_MYSQL or [mysql] server".to_owned();
    let login = |user: &str, password, tls| Login { user: user.to_owned(), password, tls, origin: origin.clone() };
    let dsn = dsn.reveal().trim();
    if dsn.starts_with('/') {
        return Ok(login(os_user, None, Tls::default()).target(Address::Socket(dsn.into()), true));
    }
    let rest = dsn
        .strip_prefix("mysql://")
        .or_else(|| dsn.strip_prefix("mariadb://"))
        .ok_or_else(|| wrong("it does not begin with mysql://"))?;
    let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("%XX does not give UTF-8 text"));
    let user = if user.is_empty() { os_user.to_owned() } else { decode(user)? };
    let password = password.map(decode).transpose()?.filter(|password| !password.is_empty()).map(Secret::new);
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let (address, _database) = place.split_once('/').unwrap_or((place, ""));
    let mut tls = Tls::default();
    let mut socket = None;
    for (name, value) in
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        let value = decode(value)?;
        match name.replace('_', "-").as_str() {
            "socket" => socket = Some(PathBuf::from(value)),
            "ssl-mode" | "sslmode" => tls.mode = TlsMode::parse(&value).ok_or_else(|| wrong("ssl-mode is unknown"))?,
            "ssl-ca" => tls.ca = Some(value.into()),
            "ssl-cert" => tls.cert = Some(value.into()),
            "ssl-key" => tls.key = Some(value.into()),
            other => {
                return Err(wrong(&format!(
                    "?{other}= is unknown (socket, ssl-mode, ssl-ca, ssl-cert, ssl-key are known)"
                )));
            }
        }
    }
    let address = match socket {
        Some(socket) => Address::Socket(socket),
        None => parse_address(address).ok_or_else(|| wrong("the part behind @ is no host:port"))?,
    };
    Ok(login(&user, password, tls).target(address, true))
}

fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| Address::Tcp { host: host.to_owned(), port })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: &u8| char::from(*digit).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push((hex(high)? * 16 + hex(low)?) as u8);
                rest = after;
            }
            // A lone % is what it looks like.
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dsn(text: &str) -> Result<Target, String> {
        parse_dsn(&Secret::new(text), "os").map_err(|error| error.to_string())
    }

    #[test]
    fn dsns() {
        let table = [
            ("mysql://u:p@h:3307", "h:3307 as u", Some("p")),
            ("mysql://u@h", "h:3306 as u", None),
            ("mysql://u:@h", "h:3306 as u", None),
            ("mysql://h", "h:3306 as os", None),
            ("mysql://u:p@ss:w#rd?&%/@h/db", "h:3306 as u", Some("p@ss:w#rd?&%/")),
            ("mysql://u:p%40%C3%A4@h", "h:3306 as u", Some("p@ä")),
            ("mysql://u:p@[::1]:3307", "[::1]:3307 as u", Some("p")),
            ("mysql://u@localhost?socket=/run/x.sock", "/run/x.sock as u", None),
            ("/run/x.sock", "/run/x.sock as os", None),
        ];
        for (text, place, password) in table {
            let target = dsn(text).unwrap();
            assert_eq!(format!("{} as {}", target.address, target.user), place, "{text}");
            assert_eq!(target.password.as_ref().map(Secret::reveal), password, "{text}");
            assert!(target.explicit);
        }
    }

    proptest::proptest! {
        /// Whatever a password is made of, its `%XX` form is that password, and nothing else of the address changes.
        #[test]
        fn any_password_passes_through_a_dsn(password in ".{1,40}") {
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let target = dsn(&format!("mysql://u:{encoded}@h:3307?ssl-mode=required")).unwrap();
            proptest::prop_assert_eq!(target.password.as_ref().map(Secret::reveal), Some(password.as_str()));
            proptest::prop_assert_eq!(format!("{} as {}", target.address, target.user), "h:3307 as u");
        }

        /// As it stands it may be written too, unless it has what ends an address or begins a `%XX`.
        #[test]
        fn most_passwords_need_no_encoding(password in "[^%]{1,40}") {
            let target = dsn(&format!("mysql://u:{password}@h:3307")).unwrap();
            proptest::prop_assert_eq!(target.password.as_ref().map(Secret::reveal), Some(password.as_str()));
        }
    }

    #[test]
    fn a_wrong_dsn_is_told_without_its_password() {
        for text in ["u:geheim@h", "mysql://u:geheim@h:port", "mysql://u:geheim@", "mysql://u:geheim@h?colour=red"] {
            let error = dsn(text).unwrap_err();
            assert!(error.contains("write mysql://") && !error.contains("geheim"), "{error}");
        }
    }
}

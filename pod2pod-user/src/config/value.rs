//! Values as written: durations, sizes, rates, words. What is refused is told with what is allowed.

use std::{path::PathBuf, time::Duration};

use crate::{enrich::Rate, mode::Mode};

/// A value before it is understood: one text, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The texts; one if it was no list.
    pub texts: Vec<String>,
    /// Written as a list.
    pub is_list: bool,
}

impl Given {
    /// One text.
    pub fn one(text: impl Into<String>) -> Self {
        Self { texts: vec![text.into()], is_list: false }
    }

    /// A list.
    pub const fn list(texts: Vec<String>) -> Self {
        Self { texts, is_list: true }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match (self.is_list, self.texts.as_slice()) {
            (false, [text]) => Some(text.trim()),
            _ => None,
        }
    }

    /// A list; one text is a list separated by commas, so that an environment variable can say it.
    pub fn items(&self) -> Vec<String> {
        match self.text() {
            Some(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
            }
            None => self.texts.clone(),
        }
    }

    /// `10s`, `250ms`, `1.5s`, `2m`, `1h`.
    pub fn duration(&self) -> Option<Duration> {
        const UNITS: &[(&str, u64)] = &[
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
        ];
        let text = self.text()?;
        let (digits, scale) =
            UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim(), *scale)))?;
        scaled(digits, scale).map(Duration::from_nanos)
    }

    /// `4096`, `64KiB`, `8MiB`, `1GiB`.
    pub fn bytes(&self) -> Option<u64> {
        const UNITS: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        let text = self.text()?;
        let unit = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim(), *scale)));
        let (digits, scale) = unit.unwrap_or((text, 1));
        scaled(digits, scale)
    }

    /// A whole number.
    pub fn integer(&self) -> Option<u64> {
        self.text()?.parse().ok()
    }

    /// `0.1`, `10%`, `1`.
    pub fn rate(&self) -> Option<Rate> {
        let text = self.text()?;
        let (digits, scale) = text.strip_suffix('%').map_or((text, 1_000_000), |digits| (digits, 10_000));
        let millionths = scaled(digits.trim(), scale)?;
        u32::try_from(millionths).ok().and_then(Rate::from_millionths)
    }

    /// `0.2`, `20%`, `2`: thousandths of a core; `off` is none. At least one.
    pub fn millicores(&self) -> Option<Option<u32>> {
        let text = self.text()?;
        if matches!(text, "off" | "false") {
            return Some(None);
        }
        let (digits, scale) = text.strip_suffix('%').map_or((text, 1000), |digits| (digits, 10));
        let millicores = scaled(digits.trim(), scale).filter(|millicores| *millicores > 0)?;
        u32::try_from(millicores).ok().map(Some)
    }

    /// `auto`, `on` or `off`.
    pub fn mode(&self) -> Option<Mode> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "auto" => Some(Mode::Auto),
            "on" | "true" => Some(Mode::On),
            "off" | "false" => Some(Mode::Off),
            _ => None,
        }
    }

    /// A path.
    pub fn path(&self) -> Option<PathBuf> {
        self.text().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// `on` or `off`, as YAML's other words for them too.
    pub fn switch(&self) -> Option<bool> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" => Some(true),
            "off" | "false" | "no" => Some(false),
            _ => None,
        }
    }
}

/// A decimal number times `scale`, exact; absent if it is none, has a remainder, or is too large.
fn scaled(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let denominator = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.checked_mul(scale)? };
    if part % denominator != 0 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(part / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, nanoseconds: Option<u64>| {
            assert_eq!(Given::one(text).duration(), nanoseconds.map(Duration::from_nanos), "{text}");
        };
        check("10s", Some(10_000_000_000));
        check("250ms", Some(250_000_000));
        check("1.5 s", Some(1_500_000_000));
        check("2m", Some(120_000_000_000));
        check("1h", Some(3_600_000_000_000));
        check("0.1ns", None);
        check("10", None);
        check("-1s", None);
        check("s", None);
        check("99999999999999h", None);
    }

    #[test]
    fn sizes_and_rates() {
        assert_eq!(Given::one("4096").bytes(), Some(4096));
        assert_eq!(Given::one("64KiB").bytes(), Some(65_536));
        assert_eq!(Given::one("1.5 MiB").bytes(), Some(1_572_864));
        assert_eq!(Given::one("1kb").bytes(), None);
        assert_eq!(Given::one("0.1").rate(), Rate::from_millionths(100_000));
        assert_eq!(Given::one("10%").rate(), Rate::from_millionths(100_000));
        assert_eq!(Given::one("1").rate(), Some(Rate::ALL));
        assert_eq!(Given::one("1.01").rate(), None);
        assert_eq!(Given::one("0.0000001").rate(), None);
    }

    #[test]
    fn cores() {
        let check = |text: &str, expected: Option<Option<u32>>| {
            assert_eq!(Given::one(text).millicores(), expected, "{text}");
        };
        check("0.2", Some(Some(200)));
        check("20%", Some(Some(200)));
        check("2", Some(Some(2000)));
        check("0.001", Some(Some(1)));
        check("off", Some(None));
        check("0", None);
        check("0.0001", None);
        check("-1", None);
        check("two", None);
    }

    #[test]
    fn modes_and_paths() {
        for (text, expected) in [
            ("auto", Some(Mode::Auto)),
            ("ON", Some(Mode::On)),
            ("true", Some(Mode::On)),
            ("off", Some(Mode::Off)),
            ("false", Some(Mode::Off)),
            ("perhaps", None),
            ("", None),
        ] {
            assert_eq!(Given::one(text).mode(), expected, "{text}");
        }
        assert_eq!((Given::one("/a").path(), Given::one("").path()), (Some("/a".into()), None));
    }

    #[test]
    fn lists() {
        assert_eq!(Given::one("a, b,,c").items(), ["a", "b", "c"]);
        assert_eq!(Given::list(vec!["a,b".to_owned()]).items(), ["a,b"]);
        assert_eq!(Given::list(vec!["a".to_owned()]).text(), None);
    }
}

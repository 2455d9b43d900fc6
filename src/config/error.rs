//! What is wrong with the configuration, said so that the reader can mend it.

use std::fmt;

/// One problem, where it stands and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What was set, as its author wrote it: `` `--threads` ``, `` `TWINSPAN_THREADS` ``, `` mount `/api` ``.
    pub option: Option<String>,
    /// The place, where the option alone does not say it: `twinspan.toml:12`.
    pub origin: Option<String>,
    pub problem: String,
    pub hint: Option<String>,
}

impl ConfigError {
    pub fn new(problem: impl Into<String>) -> Self {
        Self {
            option: None,
            origin: None,
            problem: problem.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.option = Some(option.into());
        self
    }

    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// From the text of an [`InvalidValue`] that has passed through another library's error.
    pub(super) fn from_text(text: &str) -> Self {
        match text.split_once(HINT) {
            Some((problem, hint)) => Self::new(problem).hint(hint),
            None => Self::new(text),
        }
    }
}

const HINT: &str = "\nhint: ";

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.option, &self.origin) {
            (Some(option), Some(origin)) => write!(f, "{option} ({origin}): ")?,
            (Some(place), None) | (None, Some(place)) => write!(f, "{place}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "{HINT}{hint}"),
            None => Ok(()),
        }
    }
}

/// Why a text is not the value that an option takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidValue {
    pub problem: String,
    pub hint: Option<String>,
}

impl InvalidValue {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
        }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "{HINT}{hint}"),
            None => Ok(()),
        }
    }
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, a suggestion is more often a wrong one than a help.
    const ALIKE: f64 = 0.8;
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_the_way_out() {
        let error = ConfigError::new("`shop.asgi:app` has no attribute `app`")
            .option("mount `/api`")
            .origin("twinspan.toml:12")
            .hint("`shop.asgi` defines `application`");
        assert_eq!(
            error.to_string(),
            "mount `/api` (twinspan.toml:12): `shop.asgi:app` has no attribute `app`\n\
             hint: `shop.asgi` defines `application`"
        );
        assert_eq!(
            ConfigError::new("no application").to_string(),
            "no application"
        );
    }

    #[test]
    fn the_nearest_word_is_suggested_only_when_it_is_near() {
        let words = ["threads", "io-threads", "workers"];
        assert_eq!(nearest("thread", words), Some("threads"));
        assert_eq!(nearest("worker", words), Some("workers"));
        assert_eq!(nearest("colour", words), None);
    }
}

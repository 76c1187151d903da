//! What a series is called.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

/// The label that holds a series' name.
pub const NAME: &str = "__name__";

/// Labels of a series in the order of their names: each name once, and no empty value, which is the same as none.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

/// The name and the value of one label.
type Label = (Arc<str>, Arc<str>);

impl Labels {
    /// Puts labels in order. Of a name that comes twice the last value counts.
    #[must_use]
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let ordered: BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self(ordered.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of a label; empty when there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        match self.0.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(at) => &self.0[at].1,
            Err(_) => "",
        }
    }

    /// The name of the series: its label `__name__`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get(NAME)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The number of labels, the name of the series among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These labels with one more, which takes the place of one with the same name; an empty value takes it away.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        Self::new(self.0.iter().cloned().chain([(name.into(), value.into())]))
    }

    /// Those of these labels whose names are wanted.
    #[must_use]
    pub fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| is_wanted(name)).cloned().collect())
    }

    /// The same labels with texts that `share` may have met before.
    pub(crate) fn shared(&self, share: &mut impl FnMut(&Arc<str>) -> Arc<str>) -> Self {
        Self(self.0.iter().map(|(name, value)| (share(name), share(value))).collect())
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self([].into())
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self::new(pairs)
    }
}

/// As in a query: `up{job="web"}`.
impl Display for Labels {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut rest = self.iter().filter(|(name, _)| *name != NAME).peekable();
        if rest.peek().is_none() {
            return if self.name().is_empty() { f.write_str("{}") } else { Ok(()) };
        }
        for (n, (name, value)) in rest.enumerate() {
            write!(f, "{}{name}={value:?}", if n == 0 { '{' } else { ',' })?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_order_and_an_empty_value_is_none() {
        let labels = Labels::new([("job", "web"), (NAME, "up"), ("zone", ""), ("a", "1"), ("a", "2")]);
        assert_eq!(labels.to_string(), r#"up{a="2",job="web"}"#);
        assert_eq!((labels.get("job"), labels.get("zone"), labels.len()), ("web", "", 3));
        assert_eq!(labels.with("a", "").with("b", "3").to_string(), r#"up{b="3",job="web"}"#);
        assert_eq!(labels.only(|name| name == "job").to_string(), r#"{job="web"}"#);
        assert_eq!(Labels::default().to_string(), "{}");
        assert_eq!(Labels::new([(NAME, "up")]).to_string(), "up");
    }
}

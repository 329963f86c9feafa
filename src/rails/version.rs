//! Which Rails the application runs, as far as its rules for databases differ.

/// Major and minor version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RailsVersion(pub u16, pub u16);

impl RailsVersion {
    /// Taken where no version can be known: the rules of the newest Rails.
    pub const NEWEST: Self = Self(u16::MAX, 0);

    /// The version that `Gemfile.lock` resolved: `    activerecord (7.1.2)`, four spaces in. Requirements of other gems stand
    /// further in and are no versions.
    pub fn from_lock(lock: &str) -> Option<Self> {
        lock.lines().find_map(|line| {
            let gem = line.strip_prefix("    ")?;
            let version = gem.strip_prefix("activerecord (").or_else(|| gem.strip_prefix("rails ("))?;
            let mut numbers = version.split(['.', ')']).map(str::parse);
            Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_the_version() {
        let table = [
            ("GEM\n  specs:\n    activerecord (7.1.2)\n      activemodel (= 7.1.2)\n", Some(RailsVersion(7, 1))),
            ("    rails (8.1.0.beta1)\n", Some(RailsVersion(8, 1))),
            ("    foo (1.0)\n      activerecord (>= 5.2)\n    rails (6.0.6.1)\r\n", Some(RailsVersion(6, 0))),
            ("DEPENDENCIES\n  rails (~> 7.0)\n", None),
            ("    rails-i18n (7.0.1)\n", None),
        ];
        for (lock, version) in table {
            assert_eq!(RailsVersion::from_lock(lock), version, "{lock:?}");
        }
        assert!(RailsVersion::NEWEST > RailsVersion(99, 9));
    }
}

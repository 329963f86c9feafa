//! Uuids from a seed, so that the machine which hands them out stays pure.

/// A uuid as the API prints it.
pub type Id = String;

pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next uuid (version 4 by its form).
    pub fn next_id(&mut self) -> Id {
        let (high, low) = (self.next_u64(), self.next_u64());
        let (high, low) = ((high & !0xf000) | 0x4000, (low & !(0b11 << 62)) | (0b10 << 62));
        let (high, low) = (format!("{high:016x}"), format!("{low:016x}"));
        format!("{}-{}-{}-{}-{}", &high[..8], &high[8..12], &high[12..], &low[..4], &low[4..])
    }

    /// `SplitMix64`.
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;

    #[test]
    fn an_id_is_a_version_4_uuid_and_new_each_time() {
        let mut ids = Ids::new(7);
        let (first, second) = (ids.next_id(), ids.next_id());
        assert_eq!(first.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&first[14..15], "4");
        assert!("89ab".contains(&first[19..20]));
        assert_ne!(first, second);
    }
}

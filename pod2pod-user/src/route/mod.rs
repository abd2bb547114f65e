//! Which records go where: a filter over the record's fields, and a share of what passes it. Pure.

pub mod filter;
pub mod template;
mod word;

use std::time::Duration;

pub use self::{
    filter::{Filter, FilterError},
    template::{Filler, Template, TemplateError},
    word::of_text,
};
use crate::{
    enrich::{
        Rate,
        sampling::{self, Choice},
    },
    record::Record,
};

/// What a target is given of all records.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Records that fit; all if absent.
    pub filter: Option<Filter>,
    /// The share of ordinary ones that are given, of all that there are.
    pub rate: Rate,
    /// Exchanges at least this long are no ordinary ones.
    pub slow: Duration,
}

impl Default for Route {
    /// Everything.
    fn default() -> Self {
        Self { filter: None, rate: Rate::ALL, slow: Duration::MAX }
    }
}

impl Route {
    /// The record as it goes there: itself, or one in `changed` that says its share; nothing if it does not.
    pub fn take<'a>(&self, record: &'a Record, changed: &'a mut Option<Record>) -> Option<&'a Record> {
        if self.filter.as_ref().is_some_and(|filter| !filter.fits(record)) {
            return None;
        }
        match sampling::choose(record, self.rate, self.slow) {
            Choice::Always => Some(record),
            Choice::LeftOut => None,
            Choice::Kept => {
                // What was kept at a lower rate is kept at every higher one.
                let before = record.sample_rate_millionths.unwrap_or(Rate::ALL.millionths());
                let sample_rate_millionths = Some(before.min(self.rate.millionths()));
                Some(changed.insert(Record { sample_rate_millionths, ..record.clone() }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;

    #[test]
    fn of_ordinary_records_a_share_is_taken_and_says_so() {
        let rate = Rate::from_millionths(250_000).unwrap();
        let route = Route { rate, slow: Duration::from_secs(1), ..Route::default() };
        let (mut taken, mut rates) = (0, std::collections::HashSet::new());
        for connection_id in 0..4000 {
            let outcome = Some(Outcome::Complete);
            let record = Record { connection_id, outcome, ..Record::blank() };
            let mut changed = None;
            if let Some(record) = route.take(&record, &mut changed) {
                taken += 1;
                rates.insert(record.sample_rate_millionths);
            }
            let failed = Record { status: Some(500), ..record.clone() };
            assert_eq!(route.take(&failed, &mut None), Some(&failed));
            let kept_before = Record { sample_rate_millionths: Some(100_000), ..record };
            if let Some(record) = route.take(&kept_before, &mut changed) {
                assert_eq!(record.sample_rate_millionths, Some(100_000));
            }
        }
        assert!((800..1200).contains(&taken), "{taken}");
        assert_eq!(rates, [Some(250_000)].into());
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let route = Route { filter: Some(Filter::parse("status>=500").unwrap()), ..Route::default() };
        let of = |status| Record { status: Some(status), ..Record::blank() };
        assert!(route.take(&of(500), &mut None).is_some() && route.take(&of(499), &mut None).is_none());
    }
}

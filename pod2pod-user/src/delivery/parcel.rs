//! What is sent at once: encoded items, one after the other. Pure.

use bytes::Bytes;

/// Encoded items. Its parts share its memory.
#[derive(Clone, Debug)]
pub struct Parcel {
    bytes: Bytes,
    /// Where each item ends in `bytes`.
    ends: Vec<u32>,
}

impl Parcel {
    /// Items that end at `ends` in `bytes`, the last at its end.
    pub fn new(bytes: impl Into<Bytes>, ends: Vec<u32>) -> Self {
        let bytes = bytes.into();
        debug_assert_eq!(ends.last().map_or(0, |end| *end as usize), bytes.len());
        Self { bytes, ends }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// One after the other.
    pub fn items(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let item = self.bytes.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            item
        })
    }

    /// Those at the places that `is_wanted` says.
    pub fn only(&self, mut is_wanted: impl FnMut(usize) -> bool) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (_, item) in self.items().enumerate().filter(|(place, _)| is_wanted(*place)) {
            bytes.extend_from_slice(item);
            ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        Self::new(bytes, ends)
    }

    /// The first half, at least one item shorter than the whole, and the rest; nothing if it is one item.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.len() / 2;
        let (first, second) = self.ends.split_at_checked(middle)?;
        let end = *first.last()?;
        let moved = second.iter().map(|other| other - end).collect();
        let (left, right) = (self.bytes.slice(..end as usize), self.bytes.slice(end as usize..));
        Some([Self::new(left, first.to_vec()), Self::new(right, moved)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(items: &[&str]) -> Parcel {
        let mut length = 0;
        let ends = items.iter().map(|item| {
            length += item.len() as u32;
            length
        });
        let ends = ends.collect();
        Parcel::new(items.concat().into_bytes(), ends)
    }

    fn items(parcel: &Parcel) -> Vec<&str> {
        parcel.items().map(|item| str::from_utf8(item).unwrap()).collect()
    }

    #[test]
    fn items_are_as_they_were_put_in() {
        for wanted in [&[][..], &["a"], &["a", "", "bcd"], &["", ""]] {
            let parcel = parcel(wanted);
            assert_eq!((items(&parcel), parcel.len()), (wanted.to_vec(), wanted.len()));
            assert_eq!(parcel.is_empty(), wanted.is_empty());
        }
    }

    #[test]
    fn some_of_them_are_a_parcel_too() {
        let all = parcel(&["a", "bb", "", "ccc"]);
        assert_eq!(items(&all.only(|place| place % 2 == 1)), ["bb", "ccc"]);
        assert_eq!(items(&all.only(|_| false)), [""; 0]);
    }

    #[test]
    fn halves_are_shorter_and_together_the_whole() {
        assert!(parcel(&[]).halves().is_none() && parcel(&["a"]).halves().is_none());
        let halves = parcel(&["a", "bb", "ccc"]).halves().unwrap();
        assert_eq!((items(&halves[0]), items(&halves[1])), (vec!["a"], vec!["bb", "ccc"]));
        let halves = halves[1].halves().unwrap();
        assert_eq!((items(&halves[0]), items(&halves[1])), (vec!["bb"], vec!["ccc"]));
    }
}

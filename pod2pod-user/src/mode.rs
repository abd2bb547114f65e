//! Whether something is done that not every machine has a place for. What it is, is not known here.

/// Whether it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where there is a place for it.
    #[default]
    Auto,
    /// It is expected: that there is no place for it is a warning.
    On,
    /// Not at all.
    Off,
}

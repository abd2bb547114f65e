//! `pod2pod top`: a live table of who talks to whom, from what agents count of pairs. Asks their `/metrics` and nothing else; needs no
//! rights. What a pair's figures are is decided in `figures`.

mod fetch;
mod figures;
mod filter;
pub mod options;
mod page;
mod table;

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::fetch::{MAX_PAGE_BYTES, MAX_WAIT};
use self::{
    fetch::{Reading, Trouble},
    figures::{Added, Figures, Row},
    options::Options,
    page::Page,
    table::Column,
};
use crate::{
    exit,
    shutdown::Shutdown,
    sinks::http_client::Url,
    terminal::{self, Key, REDRAW, Screen, Size},
};

/// Between two looks at the size of the terminal.
const LOOK: Duration = Duration::from_millis(200);
/// An agent counts once a second: one that counted nothing new is asked again after this.
const AGAIN: Duration = Duration::from_millis(200);
/// Pages in a row with nothing new, past which an agent is taken to hang.
const MAX_SAME: u32 = 10;
const KEYS: &str = "1-8 or s: sort, r: reverse, arrows: scroll, q: quit";

/// Does what the options say, and says how the program should exit.
pub fn run(options: Options, shutdown: &Shutdown) -> u8 {
    let screen = if options.once || options.json { Ok(None) } else { Screen::open() };
    let top = Top::new(options);
    let done = screen.and_then(|screen| match screen {
        // Before anything is said the terminal is as it was.
        Some(screen) => top.live(&screen, shutdown).map(|()| exit::OK),
        None => top.once(shutdown),
    });
    match done {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            exit::tell(format_args!("top: {error}"));
            exit::FAILURE
        }
    }
}

/// An agent that is asked.
struct Agent {
    /// As people wrote it.
    text: String,
    url: Url,
    /// What it counted when its figures were taken last, and when that was read.
    last: Option<(Page, Instant)>,
    /// Pages since with nothing new.
    same: u32,
}

struct Top {
    options: Options,
    agents: Vec<Agent>,
    rows: Vec<Row>,
    /// What is to be said beside the table.
    notes: Vec<String>,
    /// There was a table.
    has_counted: bool,
    /// Rows above the screen.
    from: usize,
}

/// Agents that could not be asked.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    failed: usize,
    /// Some have counted nothing new so far: there is no new table yet.
    is_early: bool,
}

impl Top {
    fn new(options: Options) -> Self {
        let agent =
            |(text, url): &(String, Url)| Agent { text: text.clone(), url: url.clone(), last: None, same: 0 };
        let agents = options.urls.iter().map(agent).collect();
        Self { options, agents, rows: Vec::new(), notes: Vec::new(), has_counted: false, from: 0 }
    }

    fn ask(&self) -> io::Result<Reading> {
        Reading::start(self.agents.iter().map(|agent| agent.url.clone()).collect())
    }

    /// One table.
    fn once(mut self, shutdown: &Shutdown) -> io::Result<u8> {
        let Some(first) = self.read(shutdown)? else { return Ok(exit::FAILURE) };
        self.take(first);
        if self.agents.iter().all(|agent| agent.last.is_none()) {
            self.notes.iter().for_each(exit::tell);
            return Ok(exit::FAILURE);
        }
        let mut pause = self.options.interval;
        let taken = loop {
            shutdown.wait(pause);
            let Some(pages) = self.read(shutdown)? else { return Ok(exit::FAILURE) };
            let taken = self.take(pages);
            if !taken.is_early {
                break taken;
            }
            pause = AGAIN;
        };
        let rows = self.shown();
        let text = if self.options.json {
            table::json(&rows, &self.notes, self.options.interval.as_secs_f64())
        } else {
            self.notes.iter().for_each(exit::tell);
            table::text(&rows, None).into_iter().map(|line| line.trim_end().to_owned() + "\n").collect()
        };
        io::stdout().write_all(text.as_bytes())?;
        Ok(if taken.failed > 0 { exit::FAILURE } else { exit::OK })
    }

    /// All pages, unless the program should end.
    fn read(&self, shutdown: &Shutdown) -> io::Result<Option<Vec<Result<Page, Trouble>>>> {
        let reading = self.ask()?;
        while !shutdown.is_requested() {
            let mut ends = [
                PollFd::new(reading.as_fd(), PollFlags::POLLIN),
                PollFd::new(shutdown.as_fd(), PollFlags::POLLIN),
            ];
            // Whatever it says, the conditions are looked at.
            let _ = poll(&mut ends, PollTimeout::NONE);
            if is_ready(&ends[0]) {
                return reading.finish().map(Some);
            }
        }
        Ok(None)
    }

    /// Until a signal or a key ends it.
    fn live(mut self, screen: &Screen, shutdown: &Shutdown) -> io::Result<()> {
        let (mut reading, mut next) = (None, Instant::now());
        let mut drawn: Option<Size> = None;
        while !shutdown.is_requested() {
            let now = Instant::now();
            if reading.is_none() && now >= next {
                (reading, next) = (Some(self.ask()?), now + self.options.interval);
            }
            let size = terminal::size();
            if drawn != Some(size) {
                screen.show(&[REDRAW, &self.screen(size)].concat())?;
                drawn = Some(size);
            }
            let (input, waits) = (io::stdin(), reading.as_ref().map_or(shutdown.as_fd(), Reading::as_fd));
            let descriptors = [input.as_fd(), waits, shutdown.as_fd()];
            let mut ends = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            let pause = LOOK.min(next.saturating_duration_since(now).max(Duration::from_millis(1)));
            let _ = poll(&mut ends, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
            let [has_keys, has_pages, _] = ends.map(|end| is_ready(&end));
            if has_keys {
                let mut bytes = [0; 64];
                let count = rustix::io::read(&input, &mut bytes)?;
                let keys = terminal::keys(bytes.get(..count).unwrap_or_default());
                // A terminal that ends has nobody at it.
                if count == 0 || !keys.into_iter().all(|key| self.press(key, size)) {
                    return Ok(());
                }
                drawn = None;
            }
            if let Some(pages) = reading.take_if(|_| has_pages) {
                let taken = self.take(pages.finish()?);
                if taken.is_early {
                    next = next.min(Instant::now() + AGAIN);
                }
                drawn = None;
            }
        }
        Ok(())
    }

    /// Makes rows of what is new on the pages.
    fn take(&mut self, pages: Vec<Result<Page, Trouble>>) -> Taken {
        let now = Instant::now();
        let (mut figures, mut notes, mut taken) = (Figures::default(), Vec::new(), Taken::default());
        let mut has_first = false;
        let mut fresh = Vec::new();
        for (agent, page) in self.agents.iter_mut().zip(pages) {
            let page = match page {
                Ok(page) => page,
                Err(trouble) => {
                    notes.push(format!("{}: {trouble}", agent.text));
                    taken.failed += 1;
                    fresh.push(None);
                    continue;
                }
            };
            let added = match &agent.last {
                Some((last, at)) => figures.add(last, &page, now.duration_since(*at).as_secs_f64()),
                None => Added::Yes,
            };
            has_first |= agent.last.is_none();
            match added {
                Added::Yes => agent.same = 0,
                Added::Same => agent.same += 1,
                Added::Restarted => {
                    notes.push(format!("{}: it began anew, and counts from there", agent.text))
                }
            }
            if agent.same > MAX_SAME {
                notes.push(format!("{}: it has counted nothing for {MAX_SAME} pages", agent.text));
            }
            taken.is_early |= (1..=MAX_SAME).contains(&agent.same);
            fresh.push(Some((page, now)));
        }
        self.notes = notes;
        if taken.is_early {
            // What the others counted is on their next page too.
            return taken;
        }
        for (agent, page) in self.agents.iter_mut().zip(fresh) {
            agent.last = page.or_else(|| agent.last.take());
        }
        self.has_counted |= !has_first;
        self.rows = figures.rows();
        taken
    }

    /// What the filter leaves, in order.
    fn shown(&self) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.rows.iter().filter(|row| self.options.filter.fits(row)).cloned().collect();
        self.options.order.sort(&mut rows);
        rows
    }

    fn screen(&self, size: Size) -> Vec<u8> {
        let rows = self.shown();
        let Options { urls, interval, order, filter_text, filter, .. } = &self.options;
        let of = match &urls[..] {
            [(text, _)] => text.clone(),
            many => format!("{} agents", many.len()),
        };
        let mut head = format!("pod2pod top: {of}, every {} s, {} pairs", interval.as_secs_f64(), rows.len());
        head += &format!(", by {}", order.column.as_str());
        if order.is_reversed {
            head += " reversed";
        }
        if !filter.is_empty() {
            head += &format!(", of {filter_text}");
        }
        let foot = match &self.notes[..] {
            [] if !self.has_counted => "counting",
            [] => KEYS,
            [note, ..] => note,
        };
        table::screen(&head, &table::text(&rows, Some(size.columns)), foot, self.from, size)
    }

    /// Does what a key asks for; false if that is to quit.
    fn press(&mut self, key: Key, size: Size) -> bool {
        let order = &mut self.options.order;
        let last = self.rows.len().saturating_sub(1);
        match key {
            Key::Character(b'q') => return false,
            Key::Character(b's') => order.column = order.column.next(),
            Key::Character(b'r') => order.is_reversed = !order.is_reversed,
            Key::Character(digit @ b'1'..=b'8') => {
                let column = Column::ALL.get(usize::from(digit - b'1'));
                order.column = column.copied().unwrap_or(order.column);
            }
            Key::Up | Key::Character(b'k') => self.from = self.from.saturating_sub(1),
            Key::Down | Key::Character(b'j') => self.from = (self.from + 1).min(last),
            Key::PageUp => self.from = self.from.saturating_sub(size.rows),
            Key::PageDown => self.from = (self.from + size.rows).min(last),
            Key::Character(_) => {}
        }
        true
    }
}

fn is_ready(end: &PollFd<'_>) -> bool {
    end.revents().is_some_and(|events| !events.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{options::Flags, *};
    use crate::top::page::{End, Pair, Reporter, View};

    fn top(urls: &[&str]) -> Top {
        let url = urls.iter().map(|url| (*url).to_owned()).collect();
        Top::new(Flags { url, ..Flags::default() }.options().unwrap())
    }

    fn page(at: f64, requests: f64) -> Page {
        let end = |name: &str| End { namespace: "shop".to_owned(), workload: name.to_owned() };
        let pair = Pair { client: end("web"), server: end("cart") };
        let view = View { requests, ..View::default() };
        Page {
            views: [((pair, Reporter::Server), view)].into_iter().collect(),
            counted_at: Some(at),
            ..Page::default()
        }
    }

    fn rate(top: &Top) -> Option<f64> {
        top.rows.first().map(|row| row.rate)
    }

    #[test]
    fn a_table_is_of_all_agents_that_have_counted() {
        let mut top = top(&["a:1", "b:2"]);
        top.take(vec![Ok(page(10.0, 100.0)), Ok(page(20.0, 0.0))]);
        assert_eq!((rate(&top), top.has_counted), (None, false));
        assert!(!top.take(vec![Ok(page(12.0, 120.0)), Ok(page(22.0, 10.0))]).is_early);
        assert_eq!((rate(&top), top.has_counted), (Some(15.0), true));
        // One is early: nothing changes, and nothing is lost.
        assert!(top.take(vec![Ok(page(14.0, 130.0)), Ok(page(22.0, 10.0))]).is_early);
        assert_eq!(rate(&top), Some(15.0));
        top.take(vec![Ok(page(14.0, 140.0)), Ok(page(24.0, 30.0))]);
        assert_eq!(rate(&top), Some(20.0));
        // One is gone, and comes back.
        let taken = top.take(vec![Ok(page(16.0, 160.0)), Err(Trouble::TimeOut)]);
        assert_eq!((rate(&top), taken.failed), (Some(10.0), 1));
        assert_eq!(top.notes, ["http://b:2/metrics: no answer within 5 s"]);
        top.take(vec![Ok(page(18.0, 160.0)), Ok(page(28.0, 70.0))]);
        assert_eq!((rate(&top), top.notes.len()), (Some(10.0), 0));
        // It began anew.
        top.take(vec![Ok(page(20.0, 180.0)), Ok(page(30.0, 1.0))]);
        assert_eq!((rate(&top), top.notes.len()), (Some(10.0), 1));
        top.take(vec![Ok(page(22.0, 180.0)), Ok(page(32.0, 5.0))]);
        assert_eq!((rate(&top), top.notes.len()), (Some(2.0), 0));
    }

    #[test]
    fn an_agent_that_hangs_holds_up_the_others_so_long() {
        let mut top = top(&["a:1", "b:2"]);
        top.take(vec![Ok(page(10.0, 0.0)), Ok(page(10.0, 0.0))]);
        for number in 1..=MAX_SAME {
            let at = 10.0 + f64::from(number);
            assert!(top.take(vec![Ok(page(at, 10.0)), Ok(page(10.0, 0.0))]).is_early, "{number}");
        }
        assert!(!top.take(vec![Ok(page(30.0, 10.0)), Ok(page(10.0, 0.0))]).is_early);
        assert_eq!((rate(&top), top.notes.len()), (Some(0.5), 1));
    }

    #[test]
    fn keys_sort_and_scroll_and_quit() {
        let mut top = top(&[]);
        let size = Size { rows: 10, columns: 80 };
        top.rows = vec![table::tests::row("a", "b", 1.0); 3];
        for (key, column, is_reversed, from) in [
            (Key::Character(b'4'), Column::Errors, false, 0),
            (Key::Character(b's'), Column::P50, false, 0),
            (Key::Character(b'r'), Column::P50, true, 0),
            (Key::Character(b'9'), Column::P50, true, 0),
            (Key::Up, Column::P50, true, 0),
            (Key::Down, Column::P50, true, 1),
            (Key::PageDown, Column::P50, true, 2),
            (Key::Character(b'k'), Column::P50, true, 1),
            (Key::PageUp, Column::P50, true, 0),
        ] {
            assert!(top.press(key, size));
            let order = top.options.order;
            assert_eq!((order.column, order.is_reversed, top.from), (column, is_reversed, from), "{key:?}");
        }
        assert!(!top.press(Key::Character(b'q'), size));
        let shown = String::from_utf8(top.screen(Size { rows: 24, columns: 300 })).unwrap();
        assert!(shown.starts_with(
            "pod2pod top: http://127.0.0.1:9464/metrics, every 2 s, 3 pairs, by p50 reversed\n"
        ));
        assert!(shown.ends_with("\ncounting"), "{shown}");
    }
}

//! `/proc/net/ip_vs_stats` and `ip_vs_stats_percpu`: totals and rates, every number of them hexadecimal.

use super::words;

/// One row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets from real servers.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes from real servers.
    pub bytes_out: u64,
}

/// Both parts of a file; of the second kind of file the row of all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Since the module was loaded, or the counters were zeroed; the kernel adds processors up every two seconds.
    pub total: Figures,
    /// A second, as the kernel estimates it; absent if the file ends before.
    pub rate: Option<Figures>,
}

/// Most rows of single processors that are read.
pub const MAX_CPUS: usize = 8192;

/// Totals of a file of either kind, and the totals of each processor in its order; absent if it is neither.
pub fn parse(text: &[u8]) -> Option<(Totals, Vec<(u64, Figures)>)> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let has_cpus = match (columns(lines.next()?).as_slice(), columns(lines.next()?).as_slice()) {
        ([b"Total", ..], [b"Conns", ..]) => false,
        ([b"Total", ..], [b"CPU", ..]) => true,
        _ => return None,
    };
    let mut cpus = Vec::new();
    let total = loop {
        let line = lines.next()?;
        let mut words = words::Words::new(line);
        if !has_cpus {
            break figures(words.rest())?;
        }
        match words.next() {
            b"~" => break figures(words.rest())?,
            cpu => {
                let cpu = (words::hexadecimal(cpu)?, figures(words.rest())?);
                if cpus.len() < MAX_CPUS {
                    cpus.push(cpu);
                }
            }
        }
    };
    let rates = lines.skip_while(|line| columns(line).first().is_none_or(|word| *word != b"Conns/s"));
    let rate = rates.skip(1).find_map(figures);
    Some((Totals { total, rate }, cpus))
}

fn columns(line: &[u8]) -> Vec<&[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).take(6).collect()
}

fn figures(line: &[u8]) -> Option<Figures> {
    let mut words = words::Words::new(line);
    let mut number = || words::hexadecimal(words.next());
    let (connections, packets_in, packets_out) = (number()?, number()?, number()?);
    Some(Figures { connections, packets_in, packets_out, bytes_in: number()?, bytes_out: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
      2A       B8       93             2DDA             2674

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       2        8        7              276              23E
";

    fn figures(numbers: [u64; 5]) -> Figures {
        let [connections, packets_in, packets_out, bytes_in, bytes_out] = numbers;
        Figures { connections, packets_in, packets_out, bytes_in, bytes_out }
    }

    #[test]
    fn every_number_is_hexadecimal() {
        let total = figures([42, 184, 147, 11_738, 9844]);
        let rate = Some(figures([2, 8, 7, 630, 574]));
        assert_eq!(parse(ALL.as_bytes()), Some((Totals { total, rate }, Vec::new())));
        let first: String = ALL.lines().take(3).map(|line| format!("{line}\n")).collect();
        assert_eq!(parse(first.as_bytes()), Some((Totals { total, rate: None }, Vec::new())), "cut");
        for text in ["", "root:x:0:0", &ALL.replace("2DDA", "xyz"), "Total\nConns\n"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn processors_have_rows() {
        let head = "       Total Incoming Outgoing         Incoming         Outgoing
CPU    Conns  Packets  Packets            Bytes            Bytes
";
        let text = |cpus: usize| {
            let rows: String = (0..cpus)
                .map(|cpu| {
                    format!("  {cpu:X}       1B       62       45             1A7B             133E\n")
                })
                .collect();
            format!("{head}{rows}  ~       2A       B8       93             2DDA             2674\n")
        };
        let (totals, cpus) = parse(text(17).as_bytes()).unwrap();
        assert_eq!(totals.total, figures([42, 184, 147, 11_738, 9844]));
        assert_eq!((cpus.len(), cpus[16]), (17, (16, figures([27, 98, 69, 6779, 4926]))));
        for (given, kept) in [(MAX_CPUS, MAX_CPUS), (MAX_CPUS + 1, MAX_CPUS)] {
            assert_eq!(parse(text(given).as_bytes()).unwrap().1.len(), kept);
        }
    }
}

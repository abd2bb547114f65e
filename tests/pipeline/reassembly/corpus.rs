//! The fuzz target's properties over its corpus and over seeded noise.

use std::{fs, path::Path};

use support::{reassembly::properties, rng::Rng};

#[test]
fn the_corpus_has_the_properties() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/reassembly");
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is in the tree") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display());
        properties(&fs::read(&path).expect("a readable file"));
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", corpus.display());
}

#[test]
fn seeded_noise_has_the_properties() {
    for seed in 0..2_000 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        // Few distinct values give many segments that have to do with each other.
        let values: Vec<u8> = (0..1 + rng.below(12)).map(|_| rng.next_u64() as u8).collect();
        let length = 8 * rng.below(60);
        let noise: Vec<u8> = (0..length)
            .map(|_| if rng.below(4) == 0 { rng.next_u64() as u8 } else { values[rng.below(values.len())] })
            .collect();
        properties(&noise);
    }
}

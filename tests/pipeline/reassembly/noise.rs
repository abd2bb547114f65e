//! The fuzz target's properties over seeded noise.

use support::{reassembly::properties, rng::Rng};

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

//! In which order records are answered: each answer in another, those with more weight more often first.

use super::template::Template;

/// A generator of numbers nobody needs to be unable to guess (xorshift64*).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// A number above 0 and up to 1.
    fn unit(&mut self) -> f64 {
        ((self.roll() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// Fills `order` with places of items, in the order they are answered in: all of them, or enough to choose `wanted` from.
pub(super) fn draw(template: &Template, wanted: usize, dice: &mut Dice, order: &mut Vec<u32>) {
    let count = template.items.len();
    order.clear();
    order.extend(0..count as u32);
    if count < 2 {
        return;
    }
    let wanted = wanted.clamp(1, count);
    if template.uniform {
        for place in 0..wanted.min(count - 1) {
            let other = place + dice.below((count - place) as u64) as usize;
            order.swap(place, other);
        }
    } else {
        draw_weighted(template, wanted, dice, order);
    }
}

/// Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006): the items with the smallest -ln(u)/w, in that order, are drawn
/// one after the other by weight. RFC 2782 asks for the same from clients, weight 0 having "a very small chance".
fn draw_weighted(template: &Template, wanted: usize, dice: &mut Dice, order: &mut Vec<u32>) {
    let mut keyed: Vec<(f64, u32)> = order
        .iter()
        .map(|&place| {
            let weight = f64::from(template.items[place as usize].weight).max(1e-3);
            (-dice.unit().ln() / weight, place)
        })
        .collect();
    if wanted < keyed.len() {
        keyed.select_nth_unstable_by(wanted - 1, |a, b| a.0.total_cmp(&b.0));
        keyed.truncate(wanted);
    }
    keyed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    order.clear();
    order.extend(keyed.into_iter().map(|(_, place)| place));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::rtype;

    fn template(weights: &[u32]) -> Template {
        let mut template = Template::new();
        for (last, weight) in weights.iter().enumerate() {
            template.push(rtype::A, 0, *weight, |out| out.extend_from_slice(&[10, 0, 0, last as u8]));
        }
        template
    }

    /// How often each item came first in 100,000 answers, in per cent.
    fn firsts(template: &Template, wanted: usize) -> Vec<u32> {
        let (mut dice, mut order) = (Dice::new(7), Vec::new());
        let mut count = vec![0; template.items.len()];
        for _ in 0..100_000 {
            draw(template, wanted, &mut dice, &mut order);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), order.len(), "each once");
            count[order[0] as usize] += 1;
        }
        count.iter().map(|count| (count + 500) / 1_000).collect()
    }

    #[test]
    fn equal_ones_come_first_equally_often() {
        for wanted in [1, 4] {
            for share in firsts(&template(&[5, 5, 5, 5]), wanted) {
                assert!((24..=26).contains(&share), "{share} %");
            }
        }
    }

    #[test]
    fn others_come_first_as_their_weights_say() {
        for wanted in [1, 3] {
            let shares = firsts(&template(&[70, 30, 0]), wanted);
            assert!((69..=71).contains(&shares[0]), "{shares:?}");
            assert!((29..=31).contains(&shares[1]), "{shares:?}");
            assert_eq!(shares[2], 0, "{shares:?}");
        }
    }
}

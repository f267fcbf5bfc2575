//! No member complains: nothing panicked, and no member's log has an error of ours.

use crate::record::Record;

pub(super) fn check(record: &Record) -> Result<(), String> {
    match record.complaints.first() {
        None => Ok(()),
        Some(complaint) => Err(complaint.clone()),
    }
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::Example;

    #[test]
    fn a_complaint_is_a_violation() {
        let mut example = Example::default();
        assert_eq!(super::check(&example.record), Ok(()));
        example.record.complain("it broke");
        assert_eq!(super::check(&example.record), Err("it broke".to_owned()));
    }
}

//! Acknowledged writes survive: in the end each has the revision that its caller was told.

use super::writes;
use crate::record::{Action, Record, Result as Outcome};

pub(super) fn check(record: &Record) -> Result<(), String> {
    let writes = writes(record);
    if record.ends.is_empty() {
        return Ok(());
    }
    for (number, operation) in record.operations.iter().enumerate() {
        let (Action::Write(write), Some((_, answer))) = (operation.action, operation.answer) else {
            continue;
        };
        let is_kept = writes.get(&answer.revision) == Some(&(operation.key, write.value()));
        if answer.result == Outcome::Changed && !is_kept {
            let found = writes.get(&answer.revision);
            return Err(format!("call {number} was told {answer:?}, and there is {found:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::Example;
    use crate::record::{Action, Result, Write};

    #[test]
    fn a_write_that_is_gone_is_found() {
        let mut example = Example::default();
        example.end(1, &[(1, 0, Some(5)), (2, 0, None)]);
        example.answered(0, Action::Write(Write::Put(5)), 1, Result::Changed);
        example.answered(0, Action::Write(Write::Delete), 2, Result::Changed);
        example.answered(0, Action::Write(Write::Delete), 2, Result::Unchanged);
        assert_eq!(super::check(&example.record), Ok(()));
        example.answered(0, Action::Write(Write::Put(6)), 3, Result::Changed);
        assert!(super::check(&example.record).is_err());
    }
}

CREATE TRIGGER ledger_entry_no_UPDATE BEFORE UPDATE ON ledger_entry
BEGIN SELECT RAISE(ABORT, 'ledger_entry is append-only'); END
-- next
CREATE TRIGGER ledger_entry_no_DELETE BEFORE DELETE ON ledger_entry
BEGIN SELECT RAISE(ABORT, 'ledger_entry is append-only'); END
-- next
CREATE TRIGGER ledger_credit_no_UPDATE BEFORE UPDATE ON ledger_credit
BEGIN SELECT RAISE(ABORT, 'ledger_credit is append-only'); END
-- next
CREATE TRIGGER ledger_credit_no_DELETE BEFORE DELETE ON ledger_credit
BEGIN SELECT RAISE(ABORT, 'ledger_credit is append-only'); END

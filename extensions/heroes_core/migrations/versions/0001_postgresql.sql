CREATE FUNCTION heroes_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only';
END $$
-- next
CREATE FUNCTION heroes_post(p_organisation text, p_holder text, p_currency text, p_amount bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO ledger_account (organisation, holder, period, id, currency, posted)
        VALUES (p_organisation, p_holder, '', p_holder, p_currency, p_amount)
        ON CONFLICT (organisation, holder, period)
        DO UPDATE SET posted = ledger_account.posted + excluded.posted;
$$
-- next
CREATE FUNCTION heroes_reserve(
    p_key text, p_organisation text, p_project text, p_user text, p_provider text, p_cluster text,
    p_amount bigint, p_currency text, p_lines text, p_price text, p_at bigint
) RETURNS text LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    past text;
    refused text;
    paid_in text;
    warned text;
    answer text;
BEGIN
    IF pg_advisory_xact_lock_shared(72001, hashtext(p_organisation)) IS NULL THEN END IF;
    WITH changed AS (
        UPDATE ledger_account a
        SET pending = a.pending + p_amount,
            warned_by = CASE WHEN a.warned_by IS NULL AND a.ends IS NOT NULL
                                  AND (a.posted + a.pending + p_amount) * 5 >= a.ceiling * 4
                             THEN p_key ELSE a.warned_by END
        WHERE a.organisation = p_organisation
          AND a.holder = ANY (ARRAY['0:organisation', '1:user:' || p_user, '2:project:' || p_project, '3:organisation'])
          AND (a.starts IS NULL OR a.starts <= p_at AND (p_at < a.ends OR left(a.period, 5) <> 'fixed'))
        RETURNING a.id, a.holder, a.warned_by, a.currency,
                  p_amount > 0 AND a.posted + a.pending > a.ceiling AS over, p_at >= a.ends AS past
    )
    SELECT min(c.id) FILTER (WHERE c.past),
           min(CASE c.holder WHEN '0:organisation' THEN '9' ELSE c.holder END || ' ' || c.id) FILTER (WHERE c.over),
           min(c.currency) FILTER (WHERE c.holder = '0:organisation'),
           string_agg(c.id, ' ') FILTER (WHERE c.warned_by = p_key)
        INTO past, refused, paid_in, warned FROM changed c;
    answer := CASE WHEN paid_in IS DISTINCT FROM p_currency THEN 'account'
                   WHEN past IS NOT NULL THEN 'past ' || past
                   WHEN refused IS NOT NULL THEN 'refused ' || split_part(refused, ' ', 2)
                   WHEN warned IS NOT NULL THEN 'reserved ' || warned
                   ELSE 'reserved' END;
    IF left(answer, 8) = 'reserved' THEN
        INSERT INTO ledger_entry
            (key, step, kind, organisation, project, "user", provider, cluster, debit, credit, amount,
             currency, at, lines, price)
            VALUES (p_key, 0, 'reserve', p_organisation, p_project, p_user, p_provider, p_cluster, '0:organisation',
                    '5:provider:' || p_provider, p_amount, p_currency, p_at, p_lines, p_price)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN answer;
        END IF;
        answer := 'known';
    ELSIF EXISTS (SELECT FROM ledger_entry e WHERE e.key = p_key AND e.step = 0) THEN
        answer := 'known';
    END IF;
    -- Nothing was reserved: take back what the UPDATE above did, on the rows that it locked.
    UPDATE ledger_account a
        SET pending = a.pending - p_amount,
            warned_by = CASE WHEN a.warned_by = p_key AND (answer <> 'known'
                                  OR (a.posted + a.pending - p_amount) * 5 < a.ceiling * 4)
                             THEN NULL ELSE a.warned_by END
        WHERE a.organisation = p_organisation
          AND a.holder = ANY (ARRAY['0:organisation', '1:user:' || p_user, '2:project:' || p_project, '3:organisation'])
          AND (a.starts IS NULL OR a.starts <= p_at AND (p_at < a.ends OR left(a.period, 5) <> 'fixed'));
    RETURN answer;
END $$
-- next
CREATE FUNCTION heroes_settle(
    p_key text, p_kind text, p_amount bigint, p_currency text, p_lines text, p_at bigint
) RETURNS text LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    r record;
    charged bigint;
    excess bigint;
    providers bigint;
    other text;
BEGIN
    SELECT * INTO r FROM ledger_entry WHERE key = p_key AND step = 0;
    IF NOT FOUND THEN
        RETURN 'unknown 0 -';
    ELSIF p_currency <> r.currency THEN
        RETURN 'currency 0 ' || r.currency;
    END IF;
    IF pg_advisory_xact_lock_shared(72001, hashtext(r.organisation)) IS NULL THEN END IF;
    charged := least(p_amount, r.amount);
    excess := p_amount - charged;
    INSERT INTO ledger_entry
        (key, step, kind, organisation, project, "user", provider, cluster, debit, credit, amount, currency, at,
         lines)
        VALUES (p_key, 1, p_kind, r.organisation, r.project, r."user", r.provider, r.cluster, r.debit, r.credit,
                charged, r.currency, p_at, p_lines)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT kind, amount INTO other, charged FROM ledger_entry WHERE key = p_key AND step = 1;
        RETURN other || ' ' || charged || ' ' || r.currency;
    END IF;
    IF excess > 0 THEN
        INSERT INTO ledger_entry
            (key, step, kind, organisation, project, "user", provider, cluster, debit, credit, amount, currency, at)
            VALUES (p_key, 2, 'overrun', r.organisation, r.project, r."user", r.provider, r.cluster,
                    '6:platform:overrun', r.credit, excess, r.currency, p_at);
    END IF;
    WITH changed AS (
        UPDATE ledger_account a
        SET pending = CASE WHEN a.holder = r.credit THEN 0 ELSE a.pending - r.amount END,
            posted = CASE WHEN a.holder = r.credit THEN a.posted - p_amount ELSE a.posted + charged END
        WHERE a.organisation = r.organisation
          AND a.holder = ANY (ARRAY['0:organisation', '1:user:' || r."user", '2:project:' || r.project,
                                    '3:organisation', r.credit])
          AND (a.starts IS NULL OR a.starts <= r.at AND r.at < a.ends)
        RETURNING a.holder
    )
    SELECT count(*) FILTER (WHERE holder = r.credit) INTO providers FROM changed;
    IF providers = 0 THEN
        PERFORM heroes_post(r.organisation, r.credit, r.currency, -p_amount);
    END IF;
    IF excess > 0 THEN
        PERFORM heroes_post(r.organisation, '6:platform:overrun', r.currency, excess);
    END IF;
    RETURN 'done ' || charged || ' ' || r.currency;
END $$
-- next
CREATE TRIGGER ledger_entry_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry FOR EACH STATEMENT EXECUTE FUNCTION heroes_append_only()
-- next
CREATE TRIGGER ledger_credit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_credit FOR EACH STATEMENT EXECUTE FUNCTION heroes_append_only()

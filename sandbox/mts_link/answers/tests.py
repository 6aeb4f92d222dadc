"""Answers about tests and voting."""

from typing import Any

from sandbox.mts_link.answers.base import Base
from sandbox.mts_link.org import DAY, SESSION, TEST, TEST_SESSION, USER, naive
from sandbox.mts_link.wire import NOT_FOUND, ApiError, Query, instant


class Tests(Base):
    """Methods of tests."""

    def tests(self, query: Query) -> Any:
        since = instant(query, "startTime", self.org.clock.now() - 183 * DAY)
        until = instant(query, "endTime", self.org.clock.now())
        rows = [self._test(t) for t in range(self.org.config.tests)]
        return [r for r, t in rows if since <= t <= until]

    def _test(self, t: int) -> tuple[dict[str, Any], int]:
        s, made = self.org.test_session(t), self.org.zero + t * DAY
        runs, last = [], None
        if s is not None:
            last = self.org.start(s) + 600
            runs = [self._run(t, s) | {"id": str(TEST_SESSION + t), "eventSessionId": str(SESSION + s)}]
        row = {
            "id": str(TEST + t),
            "userId": str(USER),
            "name": f"Опрос {t}",
            "createAt": naive(made),
            "lastStart": naive(last) if last else None,
            "startsCount": len(runs),
            "testSessions": runs,
        }
        return row, max(made, last or 0)

    def _run(self, t: int, s: int) -> dict[str, Any]:
        at = self.org.start(s) + 600
        return {"id": TEST_SESSION + t, "startTime": naive(at), "endTime": naive(at + 300)}

    def _test_number(self, text: str) -> int:
        t = int(text) - TEST if text.isdigit() else -1
        if not 0 <= t < self.org.config.tests:
            raise ApiError(404, NOT_FOUND)
        return t

    def test(self, query: Query, test: str) -> Any:
        t = self._test_number(test)
        row, _ = self._test(t)
        answers = [{"id": 94001 + t, "isCorrect": True, "points": 1, "order": 1, "answerData": "Да"}]
        question = {
            "id": 93001 + t,
            "allowCustomAnswer": False,
            "order": 1,
            "questionData": "Ясно?",
            "answers": answers,
        }
        return row | {
            "id": TEST + t,
            "type": "poll",
            "minPoints": 1,
            "minAnswers": 1,
            "duration": 300,
            "assessType": "pointsSum",
            "questions": [question | {"answers": answers}],
        }

    def _passing(self, t: int, p: int) -> dict[str, Any]:
        return {
            "isResultSubmitted": True,
            "isTestPassed": (t + p) % 3 > 0,
            "pointsSum": (t + p) % 3,
            "questions": [],
        }

    def results(self, query: Query, test: str) -> Any:
        t = self._test_number(test)
        s = self.org.test_session(t)
        if s is None:
            return []
        people = [
            {"userId": self.org.participant(s, p)[0]} | self._passing(t, p) for p in self.org.test_people(t)
        ]
        passed = sum(r["isTestPassed"] for r in people)
        return [
            self._run(t, s)
            | {"usersCount": len(people), "endedCount": len(people), "passedCount": passed, "users": people}
        ]

    def user_tests(self, query: Query, user: str) -> Any:
        found = []
        for t in range(self.org.config.tests):
            s = self.org.test_session(t)
            for p in self.org.test_people(t):
                if s is not None and str(self.org.participant(s, p)[0]) == user:
                    run = self._run(t, s)
                    times = {"startTime": run["startTime"], "endTime": run["endTime"]}
                    passing = {"testSessionId": TEST_SESSION + t} | times | self._passing(t, p)
                    found.append({"testId": TEST + t, "testPassings": [passing]})
                    break
        return found

    def custom_answers(self, query: Query, test: str) -> Any:
        t = self._test_number(test)
        if self.org.test_session(t) is None or t % 2:
            return []
        text = {"questionData": "Пожелания", "answerData": "Больше примеров"}
        return [
            {"id": 95001 + t, "questionImage": None, "answerImage": None, "isCorrect": None, "points": None}
            | text
        ]

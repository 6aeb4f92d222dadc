"""Tests and votes."""

from etl_assets.mts_link.endpoints.model import Endpoint, Window
from etl_assets.mts_link.shapes import passings, user_passings

FILTERS = ("eventId", "eventSessionId", "testSessionId", "userId", "startTime", "endTime")
PASSING = "isResultSubmitted isTestPassed pointsSum correctlyAnsweredQuestions questions"
PERIOD = Window("", since="startTime", until="endTime")  # without it the server cuts history

TESTS = (
    Endpoint(
        "tests_list",
        "tests",
        "Tests and votes with their runs.",
        "/tests/list",
        "id userId name createAt lastStart startsCount testSessions",
        options=FILTERS,
        privacy="tests",
        # whether the period is that of the test or of its runs is not documented
        window=Window("createAt", since="startTime", until="endTime", lookback_days=30, whole_at_night=True),
        strategy="window",
        hourly=True,
        source="GET /tests/list, help article 3185565",
    ),
    Endpoint(
        "test_info",
        "tests",
        "One test with its questions and answers.",
        "/tests/{testId}",
        "id userId name type minPoints minAnswers duration assessType questions testSessions",
        options=("testSessionId",),
        parent="tests",
        privacy="tests",
        strategy="fan_out",
        hourly=True,
        source="GET /tests/{id}, help article 3185356",
    ),
    Endpoint(
        "test_results",
        "tests",
        "Results: one row a run of a test and person; a run of nobody has one row without a person.",
        "/tests/{testId}/results",
        "id=id startTime endTime isComplexResultsShared isIndividualResultsShared usersCount endedCount "
        "passedCount userId=passing_user_id passing_startTime=passing.startTime "
        "passing_endTime=passing.endTime isResultSubmitted=passing.isResultSubmitted "
        "isTestPassed=passing.isTestPassed pointsSum=passing.pointsSum "
        "correctlyAnsweredQuestions=passing.correctlyAnsweredQuestions questions=passing.questions",
        key=("test_id", "id", "userId"),
        options=FILTERS,
        parent="started_tests",
        privacy="tests",
        window=PERIOD,
        strategy="fan_out",
        shape=passings,
        hourly=True,
        source="GET /tests/{id}/results, help article 19600",
    ),
    Endpoint(
        "user_tests_stats",
        "tests",
        "Tests of a person: one row a test and run.",
        "/users/{userId}/tests/stats",
        f"testId testSessionId startTime endTime {PASSING}",
        key=("user_id", "testId", "testSessionId"),
        options=(*FILTERS, "testId"),
        parent="participants",
        privacy="tests",
        window=PERIOD,
        strategy="fan_out",
        shape=user_passings,
        source="GET /users/{id}/tests/stats, help article 19599",
    ),
    Endpoint(
        "test_custom_answers",
        "tests",
        "Answers that people wrote themselves.",
        "/tests/{testId}/customanswers",
        "id questionData questionImage answerData answerImage isCorrect points",
        key=("test_id", "id"),
        query={"notAssessedOnly": "false"},
        options=(*(f for f in FILTERS if f != "userId"), "notAssessedOnly"),
        parent="tests",
        privacy="tests",
        window=PERIOD,
        strategy="fan_out",
        hourly=True,
        source="GET /tests/{id}/customanswers, help article 19603",
    ),
)

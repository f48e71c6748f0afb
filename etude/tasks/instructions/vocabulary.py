"""Words that the grammar of instructions composes requests and rules from."""


def _listed(text: str) -> tuple[str, ...]:
    """Split a text at semicolons."""
    return tuple(" ".join(each.split()) for each in text.split(";"))


WORDS = _listed(
    """
    apple; autumn; bell; blue; boat; book; bread; bridge; bright; brother; butter; cake; candle; castle; cat; chair; cheese; city;
    clock; cloud; coat; coffee; cold; corner; cup; dance; dark; deep; dinner; dog; door; dream; east; egg; evening; family; farm;
    feather; field; fire; fish; flower; forest; friend; frost; garden; gate; gentle; glass; gold; grandmother; grass; green; guitar;
    hand; happy; hat; heart; hill; home; honey; horse; hour; house; island; jacket; kitchen; lamp; laugh; leaf; lemon; letter; light;
    little; lucky; map; market; milk; mirror; money; moon; morning; mountain; music; narrow; neighbour; new; night; north; notebook;
    ocean; old; onion; open; orange; paint; paper; party; path; pencil; piano; picture; pillow; pink; pocket; potato; quick; quiet;
    rabbit; rain; red; river; road; roof; rose; salt; sand; school; sea; secret; seven; shadow; sheep; ship; shoe; silent; silver;
    simple; sister; sky; slow; small; smile; snow; soft; song; soup; south; spoon; spring; star; stone; storm; story; strange; street;
    strong; sugar; summer; sun; sweet; table; tea; ten; thunder; tiger; tiny; today; together; tomato; tower; town; train; travel;
    tree; valley; village; violin; voice; wall; warm; water; weather; wheel; white; wild; wind; window; winter; wolf; wonder; wood;
    wool; yellow; young
    """
)
"""Common words that a rule may ask for."""
OPENINGS = _listed(
    """
    After; Always; Before; Every; Here; How; In; Maybe; Never; Now; Once; Please; Sometimes; Soon; There; This; Today; Tonight; We;
    When; You
    """
)
"""Words that an answer may be asked to begin with."""
PHRASES = _listed(
    """
    after the rain; all day long; at the corner; before sunrise; behind the door; by the river; every other day; far from home; in the end;
    just in time; last summer; long ago; no one knows; not too fast; now and then; on the way; once more; one fine day; out of the blue;
    over the hills; step by step; the whole town; this time; under the table; with a smile
    """
)
"""Phrases that an answer may be asked to use or to begin with."""
NAMES = _listed("Ada; Ben; Clara; David; Emma; Felix; Grace; Hugo; Ivy; Jonas; Kate; Leo; Maria; Nina; Oscar; Paul; Rosa; Sam; Tom; Vera")
TOPICS = _listed(
    """
    the sea; a rainy day; an old friend; the first snow; a long train ride; the smell of bread; a lost key; the night sky; a small
    garden; a noisy city; my grandmother; a sleeping cat; the end of summer; a cup of tea; moving house; a good book; learning to
    swim; the last bus; a broken clock; a walk in the woods; an empty beach; a birthday; growing up; the moon; a busy kitchen; an
    early morning; a quiet street; waiting for a letter; a thunderstorm; the colour blue; a school trip; a new job; old photographs; a
    mountain lake; the wind; a dog named Max; a market; a lighthouse; being late; missing home
    """
)
PEOPLE = _listed(
    """
    a neighbour; a friend who is ill; my teacher; my sister; a new colleague; my boss; a child of six; my father; a customer; a friend
    who moved away; my landlord; an old classmate; my aunt; the team; a guest
    """
)
PURPOSES = _listed(
    """
    say thanks for the cake; wish good luck for tomorrow; invite them to dinner; say sorry for being late; wish a happy birthday; say that
    the meeting was moved; say get well soon; say where the key is; tell the news about the baby; warn about the late bus; say welcome
    home; ask about the hungry cat; say goodbye; ask about a lost umbrella; suggest a picnic on Sunday; ask for help with a ladder; offer
    some soup; say that the parcel came; ask for the recipe; praise the garden
    """
)
THINGS = _listed(
    """
    a bakery; a coffee shop; a bicycle shop; a bookshop; a flower shop; a boat; a small hotel; a robot; a hiking club; a school
    newspaper; a weather app; a cat cafe; a toy store; a choir; a lemonade stand; a travel blog; a rock band; a bar of soap; a
    football team; a garden centre
    """
)
PLACES = _listed(
    """
    a forest; a kitchen; a harbour; a library; a market; a school; the mountains; a small village; a garden; a museum; an airport; a
    desert; a train station; a farm; a castle; an island; a hospital; a playground; a bus; a theatre
    """
)
ANIMALS = _listed(
    """
    cats; dogs; horses; owls; bees; whales; penguins; elephants; spiders; frogs; foxes; dolphins; snails; bats; wolves; ducks
    """
)
FOODS = _listed(
    """
    soup; bread; rice; apples; cheese; pasta; potatoes; pancakes; salad; coffee; honey; chocolate; eggs; tomatoes; tea; noodles
    """
)

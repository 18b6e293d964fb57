"""What prompts are composed of: subjects by category, what they do, where, in what light, seen by what.

Each text is a list with ``;`` between its entries. Verbs stand in the present participle, so that they fit both a still
("a baker kneading dough") and a motion. ``%`` in an entry of the registers stands for what the medium shows.
"""

from __future__ import annotations

from typing import Final

from gas.datasets.words import Category
from gas.generation.prompts.terms import Register

__all__ = [
    "ACTIONS",
    "CAMERA_MOVES",
    "COLOURS",
    "DETAILS",
    "GARMENTS",
    "INDOOR_DETAILS",
    "ITEMS",
    "LEADS",
    "LIGHTS",
    "LOOKS",
    "MOTIONS",
    "NOUNS",
    "OUTDOOR_DETAILS",
    "PERSONS",
    "PLACES",
    "POSITIONS",
    "QUALITIES",
    "TIMES",
    "WEATHERS",
]


def _split(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(";") if entry.strip())


_C, _R = Category, Register

NOUNS: Final[dict[Category, tuple[str, ...]]] = {
    _C.PORTRAIT: _split("""
        woman; man; girl; boy; lady; old man; old woman; teenager with a camera; smiling nurse; bus driver; man in a
        raincoat; woman in a yellow jacket; man with a grey beard; woman with braids; man with glasses; woman with
        curly hair; boy in a school uniform; girl with freckles; team of four people; group of friends; couple; woman
        with a baby; father with his boy; two people in reflective vests; man in a wheelchair; woman in a headscarf;
        man in overalls; woman in a lab coat; person in a hooded sweater; crowd of people; queue of people; man with a
        tattooed arm; woman in a red coat; young man with headphones; woman in running gear; man in a chef's jacket;
        lady with a shopping bag; boy on a skateboard; girl with a violin; man with a cane; woman in a police uniform;
        man in a hard hat; woman carrying a ladder; entrepreneur in a grey suit; fashion designer; person with a
        backpack; family of five people; man with a bandaged hand; woman in a wedding dress; boy with a missing tooth;
        people in winter hats
    """),
    _C.FOOD: _split("""
        bowl of noodle soup; plate of scrambled eggs; loaf of sourdough bread; tray of cinnamon buns; tomato salad;
        pot of lentil stew; mango; bunch of green grapes; heap of potatoes; basket of mushrooms; wheel of cheese;
        chocolate cake with three layers; stack of pancakes; bowl of rice and beans; jar of pickled onions; sliced
        watermelon; handful of almonds; bundle of fresh herbs; pan of fried eggs; vegetable curry; pizza; fruit market
        stall; cup of berries; tray of dumplings; garlic bulb; ginger root; corn on the cob; roast meat dinner; plate
        of grilled vegetables; glass of fruit juice; breakfast plate with beans; sack of rice grains; cabbage;
        pomegranate cut in half; paper bag of chillies; lunch box with rice; birthday cake; pie; bowl of porridge;
        skewers of meat; platter of cheese and fruit; ice-cold fruit salad; baguette bread; plate of pasta; bowl of
        walnuts still in the shell; steamed buns in a bamboo basket
    """),
    _C.SCENE: _split("""
        mountain pass; harbour street; river with stone banks; empty beach; pine forest; cobbled street in an old
        town; railway bridge; city square; snow-covered valley; lake with a wooden pier; terraced garden; desert road;
        waterfall; market street; motorway under a bridge; room with peeling wallpaper; library reading room; train
        station; stairwell of an office building; rooftop garden; suburban street; island with a lighthouse; hotel
        room; flooded field; autumn park; construction site beside a river; narrow canal street; city bus stop;
        parking garage; cliff above the sea; village in a valley; cathedral; school corridor; vineyard; playground in
        a park; football field; subway station under the city; airport hall; frozen lake; orchard; wind farm in a wide
        landscape; ruined building; living room with a piano; waiting room; backyard garden; crossroads in a small
        town; industrial harbour by the sea; bamboo forest; rice terrace landscape; volcanic mountain
    """),
    _C.OBJECT: _split("""
        laptop; phone with a cracked screen; desk lamp; office chair; coffee machine; pile of books; coin collection;
        wall clock; camera on a tripod; teddy bear; bottle of ink with a pen; delivery car; red car; taxi car; bicycle
        leaning on a table; bunch of flowers; flower pot; tea set; sewing machine, a heavy iron object; chess set on a
        table; sofa with cushions; car with a dented door; keyboard of a computer; computer monitor; stack of plates;
        wooden chair; pocket watch; pair of boots; toolbox; ticket machine; toy train; vending machine; guitar case;
        suitcase; book with torn pages; vase of flowers; paper lamp; wristwatch; glass bottle; umbrella; helmet;
        traffic cone; shopping cart; printer on an office desk; microscope on a desk; bunch of keys and coins;
        drinking glass on a table; fire extinguisher; pottery bottle; telescope
    """),
    _C.ANIMAL: _split("""
        dog; cat; horse; cow; goat; flock of sheep; pig; hen; duck; rabbit; small bird; shoal of fish; crab; deer;
        turkey; puppy; tabby cat; grey horse; calf; flock of poultry; lobster; pair of ducks; dog with a red collar;
        cat with one white paw; goose; owl; parrot; pigeon; fox; squirrel; hedgehog; donkey; elephant; monkey; bear;
        swan; frog; tortoise; herd of cows; herd of deer; sheepdog, a working dog; ginger cat; pony; seagull;
        goldfish; camel; wild boar; otter
    """),
}
"""Nouns without their article, by category; each is understood by :func:`gas.datasets.words.category_of`."""

COLOURS: Final = _split("""
    red; dark blue; mustard; olive; white; black; orange; pale green; violet; silver; brown; turquoise; pink; cream;
    grey; maroon; lime; beige; copper; striped; spotted; chequered; transparent; golden; navy; rust-red
""")

ITEMS: Final = _split("""
    bucket; ladder; umbrella; lunch box; scarf; rope; crate; balloon; lantern; tarpaulin; wheelbarrow; kettle; mirror;
    handbag; ball; thermos; road sign; shopping bag; tool belt; rug; stool; fan; clipboard; raincoat; fire hose; pram;
    newspaper; guitar; basket; plank; oil drum; flower pot; pillow; microphone; toy horse; paint tin; broom; headset;
    candle; jerry can; apron; helmet; cushion; hand cart; parasol; birdcage; tricycle; typewriter; accordion; trolley;
    drum; oar; hammock; puppet; compass; whistle; lampshade; barrel; sledge
""")

POSITIONS: Final = _split("""
    stands at the left edge; lies near the front; hangs from above; leans in the background; blocks part of the view;
    has been left on the right; can be seen through a gap; lies upside down; is half out of frame; sits exactly in the
    middle; is reflected in something shiny; casts a long shadow; has fallen over; is wrapped in foil; draws the eye;
    is tied to a post; catches the light; belongs to nobody; waits in a corner; looks out of place
""")

GARMENTS: Final = _split("""
    raincoat; cardigan; tracksuit; apron; waistcoat; parka; sari; boiler suit; denim jacket; football shirt; bathrobe;
    turtleneck; kimono; poncho; dungarees; blazer; wetsuit; uniform; hoodie; summer dress; leather jacket; lab coat;
    sheepskin coat; kaftan; rain cape
""")

PERSONS: Final = _split("""
    woman; man; teenager; pensioner; toddler; student; farmer; waiter; mechanic; nun; soldier; tourist; surgeon;
    cyclist; fisherman; teacher; dancer; welder; judge; florist; boxer; courier; librarian; drummer; gardener; pilot;
    butcher; grandmother; bride; carpenter; lifeguard; shepherd; hairdresser; goalkeeper; cleaner; paramedic; street
    musician; tailor; referee; monk; stonemason; cashier; magician; diver
""")
"""What people, details and spoken things are put together from."""

QUALITIES: Final[dict[Category, tuple[str, ...]]] = {
    _C.PORTRAIT: _split("""
        tired; laughing; worried; elegant; sunburnt; serious; cheerful; shy; sweating; proud; distracted; tall; weary
    """),
    _C.FOOD: _split("""
        steaming; half-eaten; freshly washed; overripe; glossy; golden; burnt; homemade; spilled; chopped
    """),
    _C.SCENE: _split("""
        deserted; crowded; quiet; dusty; foggy; wet; overgrown; neglected; brightly lit; sleepy; windswept
    """),
    _C.OBJECT: _split("""
        rusty; brand-new; dusty; broken; wooden; dented; polished; second-hand; blue; faded; oversized; tiny
    """),
    _C.ANIMAL: _split("""
        sleepy; muddy; wet; young; alert; limping; curious; well-fed; speckled; startled; shaggy; thin
    """),
}

ACTIONS: Final[dict[Category, tuple[str, ...]]] = {
    _C.PORTRAIT: _split("""
        waiting for somebody who is late; looking straight at the lens; reading a letter; tying a shoelace; arguing
        quietly; holding a paper cup; laughing at a joke; counting change; peeling off wet gloves; pointing at a
        timetable; wiping dust off the hands; shading the eyes; carrying a heavy box; unfolding a map; leaning on a
        railing; putting on a mask; checking a receipt; knocking at a door; sharing an umbrella; rubbing tired eyes;
        whispering into an ear; waving at a passing train; stirring a pot; painting a fence; repairing a puncture;
        signing a form; searching through a pocket; hugging an old friend; sweeping the floor; sewing a button;
        blowing out candles; lifting a suitcase; adjusting a tie; cutting paper with scissors; listening with closed
        eyes; warming the hands on a mug; drawing on a window; shaking hands; tuning an instrument; feeding a child;
        stretching before a run; playing cards; scrolling on a phone; trying on a hat
    """),
    _C.FOOD: _split("""
        cooling on a rack; served in a chipped dish; wrapped in newspaper; arranged in rows; weighed on an old scale;
        topped with sesame; cut into uneven slices; drizzled with oil; left over after a party; sold by the kilo;
        stacked in a crate; packed for a journey; garnished with mint; sprinkled with salt; floating in broth; burnt
        at one edge; set out for guests; dusted with flour; covered with a cloth; shared by several hands; bubbling at
        the rim; resting on a wooden spoon; glazed and sticky; covered in frost; half wrapped in foil
    """),
    _C.SCENE: _split("""
        with nobody in sight; with long shadows; with laundry lines overhead; seen through a dirty pane; with puddles
        everywhere; with scaffolding on one side; with a single lit window; with fallen leaves; with tyre tracks; with
        flags hanging limp; with birds far away; with smoke on the horizon; with graffiti on a wall; with a row of
        parked bicycles; with barriers and warning tape; with market stalls folding up; with chairs stacked in a
        corner; with power lines; with a handwritten sign; with mist between the trunks; with rubbish bags piled up;
        with lanterns along the edge; with fresh tracks in the snow; with a cracked pavement; with steam from a grate;
        with a rainbow far off
    """),
    _C.OBJECT: _split("""
        lying on its side; covered with stickers; half hidden under a cloth; reflecting a window; with a price tag;
        with one part missing; left behind; wrapped in plastic; tied with string; casting a sharp shadow; on top of
        old newspapers; next to a glass of water; under a layer of dust; with fingerprints on it; repaired with tape;
        beside a folded map; in its opened cardboard box; hanging from a hook; with peeling paint; lit from behind;
        surrounded by loose screws; on a lace cloth; propped against a wall; with a name scratched into it
    """),
    _C.ANIMAL: _split("""
        drinking from a puddle; sleeping in a patch of sun; looking over a fence; shaking off water; following a
        child; guarding a gate; scratching an ear; eating from a bucket; hiding under leaves; peering out of a box;
        standing in a doorway; crossing in single file; rolling in dust; chewing on a rope; climbing over a wall;
        resting with closed eyes; carrying a twig; staring at the lens; nosing through straw; grooming itself;
        stretching after a nap; calling into the distance; sniffing a shoe; waiting beside a bowl; ducking under a
        rail
    """),
}
"""What a subject is at, for stills and motions."""

MOTIONS: Final[dict[Category, tuple[str, ...]]] = {
    _C.PORTRAIT: _split("""
        walks into view, hesitates and turns back; runs to catch a tram; slowly turns towards the lens and smiles;
        stumbles on a step and recovers; dances a few clumsy steps; throws a ball and misses; climbs a ladder hand
        over hand; pours water from one jug into another; pulls a cart across the ground; stands up, then sits down
        again; juggles three oranges; opens a door and looks around; folds a sheet with quick hands; claps in rhythm;
        pushes through a gate; lifts a child onto the shoulders; skips over a rope; shakes rain from an umbrella; lays
        bricks one by one; waves until the picture ends; drops a stack of papers and gathers them up; rides off on a
        bicycle
    """),
    _C.FOOD: _split("""
        is sliced by a quick knife; is turned over with a spatula; steams while a hand adds pepper; is lifted out of
        the oven; is passed from hand to hand; bubbles over the rim; is torn apart and dipped; slowly slides off a
        spoon; is drowned in sauce poured from above; is stirred in circles; tumbles out of a tipped crate; is tossed
        in a pan
    """),
    _C.SCENE: _split("""
        lies still until a cyclist crosses; fills with people within seconds; darkens as a cloud passes; trembles in
        heat haze; is crossed by a stray dog; lights up lamp by lamp; disappears behind a passing lorry; is swept by
        gusts of rain; empties as a bell rings; slowly comes into view round a bend; glitters as ripples run through;
        is covered by drifting snow
    """),
    _C.OBJECT: _split("""
        is turned around by two hands; topples over and rolls away; is unwrapped layer by layer; starts to rattle; is
        wiped clean with a rag; slides across a wet surface; is taken apart piece by piece; spins and comes to rest;
        is lifted onto a shelf; blinks twice and goes dark; is pushed aside; swings from a string
    """),
    _C.ANIMAL: _split("""
        trots towards the lens and stops; jumps over a ditch; shakes itself and water flies; chases a rolling ball;
        slips on ice and gets up; turns its head sharply; swims to the other bank; runs in circles; backs away from a
        broom; leaps onto a wall; digs and throws up earth; is fed from an outstretched hand; spreads out and takes
        off; stalks closer
    """),
}
"""What happens, for motions; present tense after the subject."""

PLACES: Final[dict[Category, tuple[str, ...]]] = {
    _C.PORTRAIT: _split("""
        at a tram stop; in a tiled kitchen; on a ferry deck; in a barber shop; by a hospital bed; on a market street;
        at a petrol station; in a crowded lift; on the steps of a museum; in a greenhouse; in a workshop; backstage;
        in a school gym; at a kitchen counter; in a laundrette; at an airport gate; on a fishing boat; at a campsite;
        in a narrow stairwell; behind a shop counter; on a balcony; in a swimming hall; at a border crossing; in a
        call centre; at a funeral; at a wedding party; in a courtroom lobby; on a factory floor; in a vegetable patch;
        at a skate ramp; in a mosque courtyard; beside a broken-down van; in a bakery; on a commuter train; in a
        dentist's chair; under a motorway; at a chess club; in a hallway full of coats
    """),
    _C.FOOD: _split("""
        on a kitchen counter; on a checked cloth; at a street stall; on a picnic blanket; in a canteen; on a baking
        sheet; in a cast-iron pan; on a marble slab; in a refrigerator; on a windowsill; at a night market; on an
        airplane tray; on a bar; in a monastery kitchen; on a grill; in a roadside diner; on a banana leaf; in a
        wooden bowl; on a hospital tray; in a shop window; at a harvest festival
    """),
    _C.SCENE: _split("""
        in the far north; near the coast; high above the clouds; on the edge of a capital; in the old quarter; behind
        the station; in the tropics; in the highlands; at the border; after a storm; in the off season; below a dam;
        in a mining district; during a holiday; on election day; in the south; near an airfield; outside a stadium; in
        the suburbs; in farm country; by the docks; at the end of the line
    """),
    _C.OBJECT: _split("""
        on a workbench; in a pawn shop; on a pavement; at a flea market; in an attic; on a shelf; in a garage; in a
        museum case; on a bed; in a police evidence bag; on the back seat; in a hotel lobby; at a bus depot; in a
        classroom; on a kitchen counter; on a doorstep; in a storage unit; on a windowsill; in a laboratory; on wet
        asphalt; in a theatre dressing room; in long grass; at a repair shop
    """),
    _C.ANIMAL: _split("""
        in a farmyard; on a country lane; behind a supermarket; in a stable; on a frozen pond; in tall grass; on a
        sofa; under a parked van; in a veterinary clinic; at a river crossing; on a rooftop; in a petting zoo; on a
        beach at low tide; in a burnt clearing; in a barn; on a pavement at rush hour; beside a swimming pool; on a
        mountain pasture; in a kitchen; in an animal shelter; in a wet meadow
    """),
}

TIMES: Final = _split("""
    at dawn; early in the morning; at noon; late in the afternoon; at dusk; at night; just before sunrise; around
    midnight; on a winter morning; on a summer evening; on a Sunday; during rush hour; at closing time; in the small
    hours; at lunchtime
""")

WEATHERS: Final = _split("""
    in pouring rain; in thick fog; under a clear sky; in light snow; in a strong wind; under heavy clouds; in drizzle;
    after rain; in a dust storm; in freezing cold; in summer heat; during a thunderstorm; under a pale sky; in a sleet
    shower
""")

LIGHTS: Final = _split("""
    low side light; flat grey light; hard midday sun; a single bare bulb; neon signs; candle light; sodium street
    lamps; soft window light; fluorescent tubes; a pair of headlights; firelight; moonlight; mixed warm and cold
    light; backlight; dappled shade; the glow of a screen; a weak torch; overcast daylight
""")

DETAILS: Final = _split("""
    a paper bag drifts through the background; two strangers talk behind; a red bucket stands at the left edge; a
    shadow falls across the middle; a reflection doubles the scene; one corner is out of focus; a bicycle wheel sticks
    into the frame; a handwritten note is taped nearby; somebody's elbow blocks the lower corner; a plastic chair has
    fallen over; the paint is flaking; a stack of crates closes off the view; a half-empty glass stands at the edge; a
    wet newspaper sticks to the ground; a string of bulbs runs across the top; a mirror shows the other side; a
    cardboard box has burst open; a strip of red tape flutters; a small hand reaches in from the right; somebody has
    drawn a face on the dirt; a yellow glove lies forgotten; a thin cable runs through the middle; a price list hangs
    askew; a coin glints near the edge; a blue tarpaulin covers something bulky; a stranger looks back over the
    shoulder; a ladder leans at an odd angle; a moth sits near the middle
""")
"""What else is seen anywhere."""

INDOOR_DETAILS: Final = _split("""
    a calendar on the wall shows the wrong month; a radio is playing somewhere; a door stands ajar; dust hangs in the
    light; a cable lies across the floor; a fan turns slowly overhead; old posters cover the wall; a clock reads ten
    past four; a curtain moves a little; a child's drawing hangs crooked; a mop stands in a corner; tinsel is left
    over from a party; the floor is chequered; a coat hangs over a chair; a tap drips; the shutters are half down; a
    fire bucket hangs on its hook; a lamp flickers; rain runs down the window; the wallpaper is torn in one place; a
    television flickers in the next room
""")

OUTDOOR_DETAILS: Final = _split("""
    breath hangs in the cold air; drops run down the glass of the lens; a number plate can be read; a spare tyre leans
    nearby; a warning sign is bent; a pile of sand narrows the way; footprints lead out of the frame; a kite hangs in
    a tree; a helicopter crosses far above; an empty bus waits behind; a manhole steams; a hedge has been cut badly;
    gulls fight over something; a traffic light turns amber; a hose lies coiled in the grass; long grass bends towards
    the left; a bonfire smokes in the distance; a shutter bangs; cyclists pass behind; an old billboard peels
""")

CAMERA_MOVES: Final = _split("""
    the camera pans left to right; the camera stays fixed; a slow push in; the view tilts up; a jerky zoom halfway
    through; the camera follows from behind; an uneven handheld sway; the focus hunts for a moment; the view slowly
    circles; the frame starts low and rises; the shot ends abruptly; a slow pull back reveals the surroundings
""")

LEADS: Final[dict[Register, tuple[str, ...]]] = {
    _R.PHONE_VIDEO: _split("""
        a shaky phone video of %; vertical phone footage of %; % filmed on a phone; a handheld phone clip of %;
        somebody's phone video of %; a low-resolution phone clip shows %
    """),
    _R.PHONE_PHOTO: _split("""
        a phone photo of %; a casual snapshot of %; % photographed with a cheap smartphone; a blurry phone picture of
        %; a phone photo, taken in passing, of %; an unedited smartphone shot of %; %, a quick snapshot
    """),
    _R.CCTV: _split("""
        CCTV footage of %; a security camera still shows %; grainy surveillance view of %; % seen by a ceiling camera;
        a time-stamped CCTV frame with %; overhead surveillance of %
    """),
    _R.DASH_CAM: _split("""
        dash cam footage of %; % seen through a windscreen by a dash cam; a dashboard camera catches %; dash cam view
        with %; a dash cam recording, % ahead
    """),
    _R.BODY_CAM: _split("""
        body cam footage of %; a helmet camera view of %; % seen from a chest-mounted action camera; wide-angle
        body-worn camera footage with %
    """),
    _R.NEWS: _split("""
        a news photo of %; a press photograph showing %; % in a local news report; news agency coverage of %; breaking
        news pictures of %; a newspaper's front page picture of %
    """),
    _R.DRONE: _split("""
        drone footage of %; an aerial view of %; % seen from a low-flying drone; a drone shot straight down on %; a
        high drone view with % far below
    """),
    _R.WEBCAM: _split("""
        a webcam image of %; % on a laptop camera; a grainy webcam view of %; a video call with % in the frame; a
        fixed public webcam showing %
    """),
    _R.SCREEN_RECORDING: _split("""
        a screen recording of a video player showing %; a screenshot of a chat with a picture of %; a screen capture
        of a map app with a photo of %; a recorded video call window with %; a screenshot of an online listing for %;
        a screenshot of %; a screen recording of %
    """),
    _R.STUDIO: _split("""
        a studio photograph of %; % in front of a seamless backdrop; a studio shot of % with softboxes; a
        medium-format studio picture of %; %, studio lighting, plain ground
    """),
    _R.DOCUMENTARY: _split("""
        a documentary photograph of %; a quiet documentary shot of %; % in an observational documentary;
        black-and-white documentary picture of %; a long-term documentary project about %
    """),
    _R.PRODUCT: _split("""
        a product photo of %; a catalogue picture of %; an online-shop product shot of %; % as a product image, sharp
        and evenly lit
    """),
    _R.SOCIAL: _split("""
        a selfie-style post with %; a vlog still of %; an over-filtered story post with %; a vlog about %; a vertical
        clip for followers with %
    """),
    _R.ARCHIVE: _split("""
        a faded 1970s snapshot of %; an old photograph of %; VHS home movie of %; a scratched archive picture of %; a
        1950s newsreel view of %
    """),
    _R.WILDLIFE: _split("""
        a camera trap picture of %; a long-lens wildlife shot of %; a night-vision trail camera view of %; wildlife
        observation of %
    """),
    _R.OTHER: _split("%; a picture of %; a realistic view of %"),
}
"""How a register introduces what it shows."""

LOOKS: Final[dict[Register, tuple[str, ...]]] = {
    _R.PHONE_VIDEO: _split("""
        rolling-shutter wobble; blown highlights; compressed and soft; wind noise in the sound; thumb over one edge;
        exposure jumps
    """),
    _R.PHONE_PHOTO: _split("""
        slight motion blur; over-sharpened; flash reflection; tilted horizon; noisy shadows; thumb over one edge;
        portrait mode blur
    """),
    _R.CCTV: _split("""
        low frame rate; date and time in the corner; fisheye distortion; washed-out colours; infrared black and white;
        a label reads CAM 04
    """),
    _R.DASH_CAM: _split("""
        reflections of the dashboard; speed readout in the corner; wipers in motion; wide lens; sun flare on the
        windscreen; timestamp below
    """),
    _R.BODY_CAM: _split("""
        strong wide-angle distortion; tilted horizon; breathing motion; gloved hands in view; timestamp in the corner
    """),
    _R.NEWS: _split("""
        telephoto compression; a microphone at the edge; caption bar below; neutral colours; cordon tape in front;
        flash from other cameras
    """),
    _R.DRONE: _split("""
        tiny people for scale; propeller shadow; smooth gliding view; wide horizon; straight-down geometry; haze in
        the distance
    """),
    _R.WEBCAM: _split("""
        poor white balance; frozen mid-gesture; face lit by the screen; low resolution; blocky compression; virtual
        background edges
    """),
    _R.SCREEN_RECORDING: _split("""
        mouse pointer visible; playback bar below; notification in a corner; window borders; blurred names; low
        battery icon
    """),
    _R.STUDIO: _split("""
        crisp detail; even background; rim light; shallow focus; colour chart at the edge; soft shadow; 85 mm lens
    """),
    _R.DOCUMENTARY: _split("""
        35 mm grain; natural colours; unposed; available light only; off-centre framing; muted tones; deep focus
    """),
    _R.PRODUCT: _split("""
        pure white ground; soft shadow below; three-quarter view; no text; macro sharpness; even reflections;
        photographed from slightly above; a colour reference card beside it; a ruler in front for scale; a second view
        from behind in the corner
    """),
    _R.SOCIAL: _split("""
        warm filter; large caption space above; beauty filter; arm's-length framing; ring light in the eyes; saturated
        colours
    """),
    _R.ARCHIVE: _split("""
        colour shift to magenta; dust and scratches; rounded corners; light leaks; tracking lines; faded edges
    """),
    _R.WILDLIFE: _split("""
        temperature readout below; grass in the foreground; shallow depth; eyes shining; infrared tones; heat shimmer
    """),
    _R.OTHER: _split("realistic; natural colours; fine detail; ordinary framing"),
}
"""What a register's devices do to a picture."""
